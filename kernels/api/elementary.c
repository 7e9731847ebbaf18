/* SPDX-License-Identifier: MIT */
/* Textbook methods: range reduction, a polynomial, and sums and products of double-doubles where 53 bits are too few (Dekker, Knuth). Which
 * polynomials, and in which order the roundings come, is what xexp, xlog_u1 and xsincos_u1 of SLEEF 3.5.1 do without fused operations (Naoki Shibata
 * and contributors, Boost Software License 1.0): the bits must be theirs. */
#include "kernels/api/elementary.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A number as the sum of two. */
typedef struct pair {
    double high, low;
} pair;

/* The upper 26 bits: products of two such are exact. */
static double upper(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= ~UINT64_C(0x7ffffff);
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* a + b where |a| >= |b|, or a is 0 */
static pair fast_sum(double a, double b)
{
    const double sum = a + b;
    return (pair){ sum, a - sum + b };
}

static pair sum(double a, double b)
{
    const double sum = a + b, b_part = sum - a;
    return (pair){ sum, (a - (sum - b_part)) + (b - b_part) };
}

static pair fast_add(pair a, double b)
{
    const pair s = fast_sum(a.high, b);
    return (pair){ s.high, s.low + a.low };
}

static pair add(pair a, double b)
{
    const pair s = sum(a.high, b);
    return (pair){ s.high, s.low + a.low };
}

static pair add_pairs(pair a, pair b)
{
    const pair s = sum(a.high, b.high);
    return (pair){ s.high, s.low + (a.low + b.low) };
}

static pair product(double a, double b)
{
    const double a1 = upper(a), a2 = a - a1, b1 = upper(b), b2 = b - b1, rounded = a * b;
    return (pair){ rounded, a1 * b1 - rounded + a2 * b1 + a1 * b2 + a2 * b2 };
}

static pair multiply(pair a, double b)
{
    const pair p = product(a.high, b);
    return (pair){ p.high, p.low + a.low * b };
}

static pair quotient(pair a, pair b)
{
    const double inverse = 1 / b.high, rounded = a.high * inverse;
    const double a1 = upper(a.high), a2 = a.high - a1, b1 = upper(b.high), b2 = b.high - b1, i1 = upper(inverse), i2 = inverse - i1;
    const double missing = 1 - b1 * i1 - b1 * i2 - b2 * i1 - b2 * i2;
    const double low = a1 * i1 - rounded + a1 * i2 + a2 * i1 + a2 * i2 + rounded * missing;
    return (pair){ rounded, inverse * (a.low - rounded * b.low) + low };
}

/* c[0] + c[1] x + c[2] x^2 + c[3] x^3 */
static double cubic(double x, const double c[4])
{
    return x * x * (x * c[3] + c[2]) + (x * c[1] + c[0]);
}

static double horner(double x, const double *c, int n)
{
    double y = *c;
    for (int i = 1; i < n; i++)
        y = y * x + c[i];
    return y;
}

double kvt_exp_plain(double x)
{
    static const double c[] = { 0x1.555555555555cp-3,  0x1.555555555553ep-5,  0x1.111111110eb39p-7,  0x1.6c16c16c20ba0p-10, 0x1.a01a01b3603f5p-13,
                                0x1.a01a01780879ep-16, 0x1.71ddf1629e6cep-19, 0x1.27e52e0fcd573p-22, 0x1.af68a28cc800ap-26, 0x1.1f0e4c4ecd775p-29 };
    const double n = rint(x * 0x1.71547652b82fep+0), r = n * -0x1.3de6af278ece6p-42 + (n * -0x1.62e42fefa3000p-1 + x);
    const double r2 = r * r, r4 = r2 * r2;
    double y = r4 * r4 * (r * c[9] + c[8]) + (r4 * cubic(r, c + 4) + cubic(r, c));
    y = y * r + 0.5;
    return ldexp(1 + (r2 * y + r), (int)n);
}

double kvt_log_plain(double x)
{
    static const double c[] = { 0x1.55555555557aep-1, 0x1.99999998f92eap-2, 0x1.249249a68a245p-2, 0x1.c71c0a65ecd8ep-3,
                                0x1.747353a506035p-3, 0x1.3872e67fe8e84p-3, 0x1.39c4f5407567ep-3 };
    /* x = 2^e m with m in [3/4, 3/2); log m = 2 atanh((m - 1) / (m + 1)) */
    const int e = ilogb(x * 0x1.5555555555555p+0);
    const double m = ldexp(x, -e);
    const pair z = quotient(sum(-1, m), sum(1, m));
    const double z2 = z.high * z.high, z4 = z2 * z2;
    const double y = z4 * z4 * (z4 * c[6] + (z2 * c[5] + c[4])) + cubic(z2, c);
    const pair by_e = multiply((pair){ 0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56 }, e);
    pair log = fast_sum(by_e.high, 2 * z.high);
    log.low = log.low + by_e.low + 2 * z.low;
    log = fast_add(log, z2 * z.high * y);
    return log.high + log.low;
}

/* Payne and Hanek: row e is 1 / 2 pi without what e + 55 bits of an argument's exponent multiply to whole turns, in four parts. */
static const double PART_OF_TURN[][4] = {
    { 0x1.45f306dc9c882p-3, 0x1.4a7f09d5f47d4p-56, 0x1.a6ee06db14accp-109, 0x1.3c439041fe516p-162 },
    { 0x1.17cc1b727220ap-5, 0x1.29fc2757d1f52p-58, 0x1.4ddc0db629598p-110, 0x1.3c439041fe516p-162 },
    { 0x1.17cc1b727220ap-5, 0x1.29fc2757d1f52p-58, 0x1.4ddc0db629598p-110, 0x1.3c439041fe516p-162 },
    { 0x1.7cc1b727220a8p-9, 0x1.4fe13abe8fa9ap-61, 0x1.bb81b6c52b328p-115, -0x1.de37df00d74e3p-169 },
    { 0x1.7cc1b727220a8p-9, 0x1.4fe13abe8fa9ap-61, 0x1.bb81b6c52b328p-115, -0x1.de37df00d74e3p-169 },
    { 0x1.7cc1b727220a8p-9, 0x1.4fe13abe8fa9ap-61, 0x1.bb81b6c52b328p-115, -0x1.de37df00d74e3p-169 },
    { 0x1.7cc1b727220a8p-9, 0x1.4fe13abe8fa9ap-61, 0x1.bb81b6c52b328p-115, -0x1.de37df00d74e3p-169 },
    { 0x1.f306dc9c882a4p-11, 0x1.3f84eafa3ea6ap-63, -0x1.11f924eb53362p-117, 0x1.0e4107f9458ebp-172 },
    { 0x1.f306dc9c882a4p-11, 0x1.3f84eafa3ea6ap-63, -0x1.11f924eb53362p-117, 0x1.0e4107f9458ebp-172 },
    { 0x1.e60db9391054ap-12, 0x1.fc2757d1f534ep-66, -0x1.1f924eb53361ep-121, 0x1.c820ff28b1d5fp-177 },
    { 0x1.cc1b727220a94p-13, 0x1.fc2757d1f534ep-66, -0x1.1f924eb53361ep-121, 0x1.c820ff28b1d5fp-177 },
    { 0x1.9836e4e44152ap-14, -0x1.ec54170565912p-73, 0x1.b6c52b3278872p-131, 0x1.07f9458eaf7afp-188 },
    { 0x1.306dc9c882a54p-15, -0x1.ec54170565912p-73, 0x1.b6c52b3278872p-131, 0x1.07f9458eaf7afp-188 },
};

/* Takes quarter turns off x, and returns how many, but for whole turns. */
static int take_quarters(pair *x)
{
    const double quarters = rint(4 * x->high);
    const int n = (int)(quarters - 4 * rint(x->high));
    *x = fast_sum(x->high - 0.25 * quarters, x->low);
    return n;
}

/* x = quarters * pi / 2 + what it returns */
static pair reduce_huge(double x, int *quarters)
{
    const int e = ilogb(x) - 55;
    const double *parts = PART_OF_TURN[e < 0 ? 0 : e];
    pair turns = product(x, parts[0]);
    *quarters = take_quarters(&turns);
    turns = add_pairs(turns, product(x, parts[1]));
    *quarters += take_quarters(&turns);
    turns = add_pairs(turns, multiply((pair){ parts[2], parts[3] }, x));
    turns = fast_sum(turns.high, turns.low);
    const pair two_pi = { 0x1.921fb54442d18p+2, 0x1.1a62633145c07p-52 };
    const pair angle = product(turns.high, two_pi.high);
    return (pair){ angle.high, angle.low + turns.high * two_pi.low + turns.low * two_pi.high };
}

static pair reduce(double x, int *quarters)
{
    const double quarters_of_1 = 0x1.45f306dc9c883p-1; /* 2 / pi */
    if (fabs(x) < 15) {
        const double n = rint(x * quarters_of_1);
        *quarters = (int)n;
        return fast_sum(n * -0x1.921fb54442d18p+0 + x, n * -0x1.1a62633145c07p-54);
    }
    if (fabs(x) >= 1e14)
        return reduce_huge(x, quarters);
    /* pi / 2 in parts that are short enough for exact products with these two. */
    const double parts[] = { -0x1.921fb50000000p+0, -0x1.110b460000000p-26, -0x1.1a62630000000p-54, -0x1.8a2e03707344ap-81 };
    const double high = trunc(x * (quarters_of_1 * 0x1p-24)) * 0x1p24, low = rint(x * quarters_of_1 - high);
    *quarters = (int)low;
    pair r = fast_sum(high * parts[0] + x, low * parts[0]);
    for (int i = 1; i < 3; i++)
        r = add(add(r, high * parts[i]), low * parts[i]);
    return fast_add(r, (high + low) * parts[3]);
}

kvt_sine_cosine kvt_sincos_plain(double x)
{
    static const double s[] = { 0x1.5d82500becb6bp-33,  -0x1.ae5e1e6f6f6d8p-26, 0x1.71de3503eae9cp-19,
                                -0x1.a01a019b64f6ap-13, 0x1.111111110f135p-7,   -0x1.5555555555542p-3 };
    static const double c[] = { -0x1.8fbf9c1bdb8cep-37,
                                0x1.1eea016409f05p-29,
                                -0x1.27e4f8130be9cp-22,
                                0x1.a01a019c8f025p-16,
                                -0x1.6c16c16c14c96p-10,
                                0x1.5555555555545p-5,
                                -0.5 };
    int quarters;
    const pair r = reduce(x, &quarters);
    const double r1 = upper(r.high), r2 = r.high - r1;
    const double square = r1 * r.low + r1 * r.low + r2 * r2 + (r1 * r2 + r1 * r2) + r1 * r1;
    pair y = fast_add(r, horner(square, s, 6) * (square * r.high));
    const double sine = x == 0 ? x : y.high + y.low;
    const pair below_1 = product(square, horner(square, c, 7));
    y = fast_sum(1, below_1.high);
    const double cosine = y.high + (y.low + below_1.low);
    const bool exchanged = quarters & 1;
    const kvt_sine_cosine result = { exchanged ? cosine : sine, exchanged ? sine : cosine };
    return (kvt_sine_cosine){ quarters & 2 ? -result.sine : result.sine, (quarters + 1) & 2 ? -result.cosine : result.cosine };
}
