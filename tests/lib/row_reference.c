/* SPDX-License-Identifier: MIT */
#include "row_reference.h"

#include "oracle.h"

#include <math.h>
#include <string.h>

enum { NAN_BITS = 0x7fc00000 };

/* One binary32 operation: the double that it is given is exact, or has more than twice the bits. */
static double f(double value)
{
    return oracle_value(oracle_f32, oracle_round(oracle_f32, value));
}
static double number(uint32_t bits)
{
    return oracle_value(oracle_f32, bits);
}
static uint32_t bits(double value)
{
    return oracle_round(oracle_f32, value);
}
static double limit(double y, double low, double high)
{
    return y < low ? low : y > high ? high : y;
}
static double half_away(double y)
{
    double whole = floor(fabs(y));
    whole += fabs(y) - whole >= 0.5 ? 1 : 0;
    return y < 0 ? -whole : whole;
}
static double half_even(double y)
{
    double whole = floor(y), rest = y - whole;
    return rest > 0.5 || (rest == 0.5 && fmod(whole, 2) != 0) ? whole + 1 : whole;
}
static double two_to(int exponent)
{
    return ldexp(1, exponent);
}

static void put(unsigned char *at, size_t bytes, uint32_t value)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}
static uint32_t get(const unsigned char *at, size_t bytes)
{
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint32_t)at[i] << 8 * i;
    return value;
}

/* ---- what is known of a block ---- */

typedef struct block {
    uint32_t n;
    uint32_t x[KVT_MAX_DIM]; /* zeros where the row has ended */
} block;

static uint32_t magnitude(uint32_t x)
{
    return x & 0x7fffffff;
}
static bool is_finite(uint32_t x)
{
    return magnitude(x) < 0x7f800000;
}

static uint32_t amax_of(const block *b)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < b->n; i++)
        if (magnitude(b->x[i]) > largest)
            largest = magnitude(b->x[i]);
    return largest;
}
static uint32_t finite_amax_of(const block *b)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < b->n; i++)
        if (is_finite(b->x[i]) && magnitude(b->x[i]) > largest)
            largest = magnitude(b->x[i]);
    return largest;
}
static uint32_t signed_largest_of(const block *b, bool first_wins)
{
    uint32_t amax = amax_of(b), found = amax;
    bool has = false;
    for (uint32_t i = 0; i < b->n && amax > 0; i++) {
        if (magnitude(b->x[i]) != amax)
            continue;
        if (!has || (!first_wins && b->x[i] >> 31))
            found = b->x[i];
        has = true;
    }
    if (amax == 0 && !first_wins)
        for (uint32_t i = 0; i < b->n; i++)
            found |= b->x[i];
    return found;
}

typedef struct span {
    bool finite;
    double min, max;
    uint32_t min_bits; /* with the sign of a zero */
} span;

static span span_of(const block *b, bool first_zero)
{
    span s = { .finite = is_finite(amax_of(b)) };
    if (!s.finite)
        return s;
    s.min = s.max = number(b->x[0]);
    for (uint32_t i = 0; i < b->n; i++) {
        double x = number(b->x[i]);
        s.min = x < s.min ? x : s.min;
        s.max = x > s.max ? x : s.max;
    }
    bool has = false;
    for (uint32_t i = 0; i < b->n; i++) {
        if (number(b->x[i]) != s.min)
            continue;
        if (!has || (!first_zero && b->x[i] >> 31))
            s.min_bits = b->x[i];
        has = true;
    }
    return s;
}

/* ---- scales ---- */

typedef struct scale16 {
    uint32_t stored;
    double d, r;
    bool wrong;
} scale16;

/* `d` as bits: it may be NaN or infinite. */
static scale16 f16_scale(uint32_t d)
{
    if (!is_finite(d) || fabs(number(d)) >= 65520)
        return (scale16){ .stored = 0x7e00, .wrong = true };
    if (fabs(number(d)) <= 0x1p-25)
        return (scale16){ .stored = 0 };
    return (scale16){ .stored = oracle_narrow(oracle_f16, d), .d = number(d), .r = f(1 / number(d)) };
}
static scale16 ggml_scale(double d, uint32_t extent)
{
    if (!is_finite(extent))
        return (scale16){ .stored = 0x7e00, .wrong = true };
    scale16 s = { .stored = oracle_narrow(oracle_f16, bits(d)), .d = d };
    if (number(extent) >= 0x1p-100)
        s.r = f(1 / d);
    return s;
}
/* amax, or what it was divided by, may not be a number. */
static uint32_t quotient(uint32_t a, double b)
{
    return is_finite(a) ? bits(number(a) / b) : NAN_BITS;
}

static scale16 refined(const block *b, const double *v, scale16 s)
{
    if (s.wrong || s.r == 0)
        return s;
    double p = f(2047 / number(amax_of(b))), a = 0, n = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        a += half_even(f(number(b->x[i]) * p)) * v[i];
        n += v[i] * v[i];
    }
    scale16 better = f16_scale(bits(f(f(a / n) / p)));
    return better.wrong || better.r == 0 ? s : better;
}

/* A scale as it is read: NaN, or a number. */
typedef struct read_scale {
    bool nan;
    double value;
} read_scale;

static read_scale read_f16(const unsigned char *at)
{
    uint32_t half = get(at, 2);
    if ((half & 0x7fff) >= 0x7c00)
        return (read_scale){ .nan = true };
    double value = oracle_value(oracle_f16, half);
    return (read_scale){ .value = value == 0 ? 0 : value }; /* -0 too */
}
static read_scale read_f32(uint32_t stored)
{
    if (!is_finite(stored))
        return (read_scale){ .nan = true };
    double value = number(stored);
    return (read_scale){ .value = fabs(value) < 0x1p-117 ? 0 : value };
}
static read_scale read_e8m0(unsigned byte)
{
    if (byte == 0xff)
        return (read_scale){ .nan = true };
    return (read_scale){ .value = byte < 10 ? 0 : two_to((int)byte - 127) };
}

/* ---- FP8, FP4 ---- */

static uint32_t e4m3(uint32_t x, double r)
{
    uint32_t sign = x >> 31 << 7;
    if (magnitude(x) > 0x7f800000)
        return sign | 0x7f;
    if (!is_finite(x))
        return sign | 0x7e;
    double scaled = fabs(number(x)) * r;
    return sign | oracle_round(oracle_e4m3, scaled < 0x1p-20 ? 0 : f(scaled));
}
static uint32_t e4m3_value(uint32_t code, read_scale s)
{
    if ((code & 0x7f) == 0x7f || s.nan)
        return NAN_BITS;
    return bits(oracle_value(oracle_e4m3, code) * s.value);
}

static const double fp4[8] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 };

/* `even`: ties to the even code, and zeros have signs; otherwise to the smaller. */
static uint32_t e2m1(uint32_t x, double d, bool even)
{
    uint32_t code = 0;
    double a = is_finite(x) ? fabs(number(x)) : 0;
    for (uint32_t q = 1; q < 8 && d > 0; q++) {
        double middle = f((fp4[q - 1] + fp4[q]) / 2 * d);
        if (a > middle || (even && q % 2 == 0 && a == middle))
            code = q;
    }
    return code == 0 && !even ? 0 : code | x >> 31 << 3;
}
static double e2m1_value(uint32_t code)
{
    return code & 8 ? -fp4[code & 7] : fp4[code & 7];
}

/* ---- places of codes ---- */

static void put_nibble(unsigned char *at, bool high, uint32_t code)
{
    *at = (unsigned char)(high ? (*at & 15) | code << 4 : (*at & 0xf0) | code);
}
static uint32_t get_nibble(const unsigned char *at, bool high)
{
    return high ? *at >> 4 : *at & 15;
}
static void put_half(unsigned char *at, uint32_t n, uint32_t c, uint32_t code)
{
    put_nibble(at + c % (n / 2), c >= n / 2, code & 15);
}
static uint32_t get_half(const unsigned char *at, uint32_t n, uint32_t c)
{
    return get_nibble(at + c % (n / 2), c >= n / 2);
}

static const double iq4_nl[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

static uint32_t iq4_nl_near(double y)
{
    uint32_t i = 0;
    while (i < 15 && y >= (iq4_nl[i] + iq4_nl[i + 1]) / 2)
        i++;
    return i;
}

/* Where the upper bits of channel c's code are in q6_0. */
static uint32_t q6_byte(uint32_t c)
{
    return c % 8;
}
static uint32_t q6_shift(uint32_t c)
{
    return 2 * (c / 16) + 4 * (c / 8 % 2);
}

/* ---- formats ---- */

typedef struct shape {
    kvt_row_format format;
    uint32_t block, block_bytes, row_bytes;
} shape;

static const shape shapes[] = {
    { KVT_ROW_ggml_q8_0, 32, 34, 0 }, { KVT_ROW_ggml_q4_0, 32, 18, 0 },   { KVT_ROW_ggml_q4_1, 32, 20, 0 },      { KVT_ROW_ggml_q5_0, 32, 22, 0 },
    { KVT_ROW_ggml_q5_1, 32, 24, 0 }, { KVT_ROW_ggml_iq4_nl, 32, 18, 0 }, { KVT_ROW_ggml_mxfp4, 32, 17, 0 },     { KVT_ROW_ggml_nvfp4, 64, 36, 0 },
    { KVT_ROW_ik_q6_0, 32, 26, 0 },   { KVT_ROW_ik_q8_kv, 1, 1, 8 },      { KVT_ROW_mxfp8_e4m3, 32, 33, 0 },     { KVT_ROW_mxfp4, 32, 17, 0 },
    { KVT_ROW_nvfp4, 16, 9, 0 },      { KVT_ROW_vllm_int8, 1, 1, 4 },     { KVT_ROW_vllm_fp8, 1, 1, 4 },         { KVT_ROW_vllm_int4, 2, 1, 4 },
    { KVT_ROW_openvino_u8, 1, 1, 8 }, { KVT_ROW_openvino_u4, 2, 1, 8 },   { KVT_ROW_deepseek_fp8, 128, 132, 0 }, { KVT_ROW_deepseek_v4, 64, 65, 0 },
};

static const shape *shape_of(kvt_row_format format)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (shapes[i].format == format)
            return &shapes[i];
    return NULL;
}

static uint32_t blocks_of(const shape *s, uint32_t dim)
{
    return (dim + s->block - 1) / s->block;
}

size_t reference_row_bytes(kvt_row_format format, uint32_t dim)
{
    const shape *s = shape_of(format);
    return s == NULL ? 0 : blocks_of(s, dim) * s->block_bytes + s->row_bytes;
}

static void encode_q8_0(const block *b, unsigned char *to, kvt_rounding rounding)
{
    uint32_t amax = amax_of(b), d = quotient(amax, 127);
    scale16 s = rounding == KVT_ROUNDING_CANONICAL ? f16_scale(d) : ggml_scale(is_finite(amax) ? number(d) : 0, amax);
    if (rounding == KVT_ROUNDING_GGML_X86 && s.r != 0)
        s.r = f(127 / number(amax));
    put(to, 2, s.stored);
    for (uint32_t c = 0; c < 32; c++) {
        double y = s.wrong ? 0 : f(number(b->x[c]) * s.r);
        to[2 + c] = (unsigned char)(int)(rounding == KVT_ROUNDING_GGML_SCALAR ? half_away(y) : half_even(y));
    }
}

/* q4_0, q5_0, q6_0 */
static void biased(const block *b, double n, scale16 s, uint32_t *code)
{
    for (uint32_t c = 0; c < 32; c++)
        code[c] = (uint32_t)(s.wrong ? n : limit(floor(f(f(number(b->x[c]) * s.r) + (n + 0.5))), 0, 2 * n - 1));
}
static scale16 biased_scale(const block *b, double n, kvt_rounding rounding)
{
    uint32_t amax = amax_of(b), m = signed_largest_of(b, rounding != KVT_ROUNDING_CANONICAL);
    if (rounding == KVT_ROUNDING_CANONICAL)
        return f16_scale(quotient(m, -n));
    return ggml_scale(is_finite(amax) ? number(quotient(m, -n)) : 0, amax);
}

static void encode_biased(const block *b, unsigned char *to, kvt_rounding rounding, double n)
{
    uint32_t code[32], high = 0;
    scale16 s = biased_scale(b, n, rounding);
    biased(b, n, s, code);
    put(to, 2, s.stored);
    for (uint32_t c = 0; c < 32; c++) {
        put_half(to + (n == 16 ? 6 : 2), 32, c, code[c]);
        high |= code[c] >> 4 << c;
    }
    if (n == 16)
        put(to + 2, 4, high);
}

static void encode_min(const block *b, unsigned char *to, kvt_rounding rounding, double n)
{
    bool canonical = rounding == KVT_ROUNDING_CANONICAL;
    span m = span_of(b, !canonical);
    uint32_t range = m.finite ? bits(m.max - m.min) : NAN_BITS, high = 0;
    scale16 s = canonical ? f16_scale(quotient(range, n)) : ggml_scale(is_finite(range) ? number(quotient(range, n)) : 0, range);
    bool wrong = s.wrong || (canonical && fabs(m.min) >= 65520);
    put(to, 2, wrong ? 0x7e00 : s.stored);
    put(to + 2, 2, wrong ? 0x7e00 : oracle_narrow(oracle_f16, m.min_bits));
    for (uint32_t c = 0; c < 32; c++) {
        double y = wrong ? 0 : f(f(f(number(b->x[c]) - m.min) * s.r) + 0.5);
        uint32_t code = (uint32_t)limit(floor(y), 0, n);
        put_half(to + (n == 31 ? 8 : 4), 32, c, code);
        high |= code >> 4 << c;
    }
    if (n == 31)
        put(to + 4, 4, high);
}

static void encode_iq4_nl(const block *b, unsigned char *to)
{
    double v[32];
    scale16 s = f16_scale(quotient(signed_largest_of(b, false), -127));
    for (uint32_t c = 0; c < 32; c++)
        v[c] = iq4_nl[iq4_nl_near(s.wrong ? 0 : f(number(b->x[c]) * s.r))];
    s = refined(b, v, s);
    put(to, 2, s.stored);
    for (uint32_t c = 0; c < 32; c++)
        put_half(to + 2, 32, c, iq4_nl_near(s.wrong ? 0 : f(number(b->x[c]) * s.r)));
}

static void encode_q6_0(const block *b, unsigned char *to)
{
    uint32_t code[32];
    double v[32];
    scale16 s = biased_scale(b, 32, KVT_ROUNDING_CANONICAL);
    biased(b, 32, s, code);
    for (uint32_t c = 0; c < 32; c++)
        v[c] = (double)code[c] - 32;
    s = refined(b, v, s);
    biased(b, 32, s, code);
    put(to, 2, s.stored);
    for (uint32_t c = 0; c < 32; c++) {
        put_half(to + 10, 32, c, code[c]);
        to[2 + q6_byte(c)] = (unsigned char)(to[2 + q6_byte(c)] | code[c] >> 4 << q6_shift(c));
    }
}

static void encode_ggml_mxfp4(const block *b, unsigned char *to)
{
    uint32_t amax = amax_of(b);
    double d = 0;
    if (!is_finite(amax)) {
        to[0] = 0xff;
    } else if (number(amax) < 0x1p-100) {
        to[0] = 0;
    } else {
        to[0] = (unsigned char)((amax >> 23) - 2);
        d = two_to((int)to[0] - 127);
    }
    for (uint32_t c = 0; c < 32; c++)
        put_half(to + 1, 32, c, e2m1(b->x[c], d, false));
}

static uint32_t ggml_ue4m3(double a)
{
    if (a < 0x1p-6)
        return (uint32_t)limit(floor(f(a * 512 + 0.5)), 0, 7); /* ggml adds in f32: what is an ulp below a half becomes 1 */
    if (a >= 248)
        return 0x7e;
    int exponent;
    double fraction = frexp(a, &exponent) * 2; /* 1 <= fraction < 2 */
    return (uint32_t)((exponent - 1 + 7) * 8 + (int)floor((fraction - 1) * 8 + 0.5));
}

static void encode_ggml_nvfp4(const block *b, unsigned char *to, kvt_rounding rounding)
{
    for (uint32_t part = 0; part < 4; part++) {
        block sub = { .n = 16 };
        memcpy(sub.x, b->x + 16 * part, sizeof *sub.x * 16);
        uint32_t amax = amax_of(&sub);
        double sixth = is_finite(amax) ? f(number(amax) / 6) : 0, d = 0;
        uint32_t stored = rounding == KVT_ROUNDING_CANONICAL ? oracle_round(oracle_e4m3, sixth) : ggml_ue4m3(sixth);
        if (!is_finite(amax))
            stored = 0x7f;
        else
            d = oracle_value(oracle_e4m3, stored);
        to[part] = (unsigned char)stored;
        for (uint32_t c = 0; c < 16; c++)
            put_half(to + 4 + 8 * part, 16, c, e2m1(sub.x[c], d, false));
    }
}

static int power_below(uint32_t amax, int emax)
{
    int e = (int)(amax >> 23) - 127 - emax;
    return e < -100 ? -100 : e;
}

static bool is_deepseek(kvt_row_format format)
{
    return format == KVT_ROW_deepseek_fp8 || format == KVT_ROW_deepseek_v4;
}

static void encode_deepseek(kvt_row_format format, const block *b, unsigned char *codes, unsigned char *scale)
{
    double least = f(number(finite_amax_of(b)) / 448);
    int e = -200;
    while (two_to(e) < fmax(least, (double)1e-4f))
        e++;
    if (format == KVT_ROW_deepseek_v4)
        *scale = (unsigned char)(e + 127);
    else
        put(scale, 4, (uint32_t)(e + 127) << 23);
    for (uint32_t c = 0; c < b->n; c++)
        codes[c] = (unsigned char)e4m3(b->x[c], two_to(-e));
}

static void encode_ocp(kvt_row_format format, const block *b, unsigned char *codes, unsigned char *scale, double global)
{
    uint32_t amax = amax_of(b);
    double d = 0;
    if (format == KVT_ROW_mxfp8_e4m3) {
        int e = power_below(finite_amax_of(b), 8);
        *scale = (unsigned char)(e + 127);
        for (uint32_t c = 0; c < 32; c++)
            codes[c] = (unsigned char)e4m3(b->x[c], two_to(-e));
        return;
    }
    if (format == KVT_ROW_mxfp4) {
        *scale = 0xff;
        if (is_finite(amax)) {
            *scale = (unsigned char)(power_below(amax, 2) + 127);
            d = two_to(*scale - 127);
        }
    } else {
        *scale = 0x7f;
        if (is_finite(amax)) {
            *scale = (unsigned char)oracle_round(oracle_e4m3, f(f(number(amax) / 6) / global));
            d = f(oracle_value(oracle_e4m3, *scale) * global);
        }
    }
    for (uint32_t c = 0; c < b->n; c++)
        put_nibble(codes + c / 2, c % 2, e2m1(b->x[c], d, true));
}

static void encode_row(kvt_row_format format, const block *b, unsigned char *row)
{
    uint32_t dim = b->n, amax = amax_of(b);
    span s = span_of(b, false);
    switch (format) {
    case KVT_ROW_ik_q8_kv: {
        double d = is_finite(amax) && number(amax) >= 0x1p-100 ? f(number(amax) / 127) : 0, sum = 0;
        for (uint32_t c = 0; c < dim; c++) {
            double q = d == 0 ? 0 : half_even(f(number(b->x[c]) * f(1 / d)));
            row[8 + c] = (unsigned char)(int)q;
            sum += q;
        }
        put(row, 4, is_finite(amax) ? bits(d) : NAN_BITS);
        put(row + 4, 4, (uint32_t)(int32_t)sum);
        break;
    }
    case KVT_ROW_vllm_int8: {
        double scale = fmax(is_finite(amax) ? f(number(amax) / 127) : 0, f(1e-6));
        for (uint32_t c = 0; c < dim; c++)
            row[c] = (unsigned char)(int)(is_finite(amax) ? half_even(f(number(b->x[c]) * f(1 / scale))) : 0);
        put(row + dim, 4, is_finite(amax) ? bits(scale) : NAN_BITS);
        break;
    }
    case KVT_ROW_vllm_fp8: {
        double scale = fmax(f(number(finite_amax_of(b)) / 448), f(1e-6));
        for (uint32_t c = 0; c < dim; c++)
            row[c] = (unsigned char)e4m3(b->x[c], f(1 / scale));
        put(row + dim, 4, bits(scale));
        break;
    }
    case KVT_ROW_vllm_int4: {
        uint32_t range = s.finite ? bits(fmax(s.max, 0) - fmin(s.min, 0)) : NAN_BITS;
        bool wrong = !is_finite(range);
        double scale = number(bits(fmax(wrong ? 0 : f(number(range) / 15), f(1e-6))) & 0xfffffff0), r = f(1 / scale);
        double z = wrong ? 0 : half_away(limit(f(-fmin(s.min, 0) * r), 0, 15));
        for (uint32_t c = 0; c < dim; c++)
            put_nibble(row + c / 2, c % 2, (uint32_t)(wrong ? 0 : half_away(limit(f(f(number(b->x[c]) * r) + z), 0, 15))));
        put(row + (dim + 1) / 2, 4, wrong ? NAN_BITS : bits(scale) | (uint32_t)z);
        break;
    }
    case KVT_ROW_openvino_u8:
    case KVT_ROW_openvino_u4: {
        bool eight = format == KVT_ROW_openvino_u8;
        double n = eight ? 255 : 15;
        uint32_t range = s.finite ? bits(s.max - s.min) : NAN_BITS;
        bool wrong = !is_finite(range);
        double scale = wrong ? 1 : f(number(range) / n), min = fabs(s.min) < 0x1p-100 ? 0 : s.min;
        if (scale < 0x1p-100) {
            scale = f(0.0001);
            wrong = wrong || fabs(min) >= 0x1p100;
        }
        double z = wrong ? 0 : f(-min / scale);
        z = fabs(z) < 0x1p-24 ? 0 : z;
        put(row, 4, wrong ? NAN_BITS : bits(scale));
        put(row + 4, 4, bits(z));
        for (uint32_t c = 0; c < dim; c++) {
            uint32_t code = (uint32_t)(wrong ? 0 : half_even(limit(f(f(number(b->x[c]) * f(1 / scale)) + z), 0, n)));
            if (eight)
                row[8 + c] = (unsigned char)code;
            else
                put_nibble(row + 8 + c / 2, c % 2 == 0, code);
        }
        break;
    }
    default:
        break;
    }
}

static bool is_of_blocks(kvt_row_format format)
{
    return shape_of(format)->block >= 16;
}
static bool has_scales_last(kvt_row_format format)
{
    return format == KVT_ROW_mxfp8_e4m3 || format == KVT_ROW_mxfp4 || format == KVT_ROW_nvfp4 || is_deepseek(format);
}

void reference_encode(kvt_row_format format, uint32_t dim, const uint32_t *x, unsigned char *row, kvt_rounding rounding, float global)
{
    const shape *s = shape_of(format);
    memset(row, 0, reference_row_bytes(format, dim));
    block b = { .n = dim };
    if (!is_of_blocks(format)) {
        memcpy(b.x, x, dim * sizeof *x);
        encode_row(format, &b, row);
        return;
    }
    uint32_t blocks = blocks_of(s, dim), scale_bytes = format == KVT_ROW_deepseek_fp8 ? 4 : 1, code_bytes = s->block_bytes - scale_bytes;
    for (uint32_t i = 0; i < blocks; i++) {
        b.n = s->block;
        for (uint32_t c = 0; c < s->block; c++)
            b.x[c] = i * s->block + c < dim ? x[i * s->block + c] : 0;
        unsigned char *to = row + i * s->block_bytes;
        switch (format) {
        case KVT_ROW_ggml_q8_0:
            encode_q8_0(&b, to, rounding);
            break;
        case KVT_ROW_ggml_q4_0:
            encode_biased(&b, to, rounding, 8);
            break;
        case KVT_ROW_ggml_q5_0:
            encode_biased(&b, to, rounding, 16);
            break;
        case KVT_ROW_ggml_q4_1:
            encode_min(&b, to, rounding, 15);
            break;
        case KVT_ROW_ggml_q5_1:
            encode_min(&b, to, rounding, 31);
            break;
        case KVT_ROW_ggml_iq4_nl:
            encode_iq4_nl(&b, to);
            break;
        case KVT_ROW_ggml_mxfp4:
            encode_ggml_mxfp4(&b, to);
            break;
        case KVT_ROW_ggml_nvfp4:
            encode_ggml_nvfp4(&b, to, rounding);
            break;
        case KVT_ROW_ik_q6_0:
            encode_q6_0(&b, to);
            break;
        case KVT_ROW_deepseek_fp8:
        case KVT_ROW_deepseek_v4:
            encode_deepseek(format, &b, row + i * code_bytes, row + blocks * code_bytes + i * scale_bytes);
            break;
        default:
            encode_ocp(format, &b, row + i * code_bytes, row + blocks * code_bytes + i, global);
            break;
        }
    }
}

/* ---- reading ---- */

static uint32_t product(double code, read_scale s)
{
    return s.nan ? NAN_BITS : bits(code * s.value);
}

static uint32_t block_value(kvt_row_format format, const unsigned char *from, uint32_t c)
{
    switch (format) {
    case KVT_ROW_ggml_q8_0:
        return product((int8_t)from[2 + c], read_f16(from));
    case KVT_ROW_ggml_q4_0:
        return product((double)get_half(from + 2, 32, c) - 8, read_f16(from));
    case KVT_ROW_ggml_q5_0:
        return product((double)(get_half(from + 6, 32, c) | (get(from + 2, 4) >> c & 1) << 4) - 16, read_f16(from));
    case KVT_ROW_ik_q6_0:
        return product((double)(get_half(from + 10, 32, c) | (get(from + 2 + q6_byte(c), 1) >> q6_shift(c) & 3) << 4) - 32, read_f16(from));
    case KVT_ROW_ggml_iq4_nl:
        return product(iq4_nl[get_half(from + 2, 32, c)], read_f16(from));
    case KVT_ROW_ggml_q4_1:
    case KVT_ROW_ggml_q5_1: {
        bool five = format == KVT_ROW_ggml_q5_1;
        read_scale d = read_f16(from), m = read_f16(from + 2);
        uint32_t code = get_half(from + (five ? 8 : 4), 32, c) | (five ? (get(from + 4, 4) >> c & 1) << 4 : 0);
        return d.nan || m.nan ? NAN_BITS : bits(code * d.value + m.value);
    }
    case KVT_ROW_ggml_mxfp4: {
        uint32_t code = get_half(from + 1, 32, c);
        return product(code == 8 ? 0 : e2m1_value(code), read_e8m0(from[0]));
    }
    default: { /* ggml_nvfp4 */
        uint32_t stored = from[c / 16] & 0x7f, code = get_half(from + 4 + c / 16 * 8, 16, c % 16);
        read_scale s = { .nan = stored == 0x7f };
        if (!s.nan)
            s.value = oracle_value(oracle_e4m3, stored);
        return product(code == 8 ? 0 : e2m1_value(code), s);
    }
    }
}

static uint32_t ocp_value(kvt_row_format format, const unsigned char *codes, unsigned scale, uint32_t c, double global)
{
    if (format == KVT_ROW_mxfp8_e4m3 || format == KVT_ROW_deepseek_v4)
        return e4m3_value(codes[c], read_e8m0(scale));
    double code = e2m1_value(get_nibble(codes + c / 2, c % 2));
    if (format == KVT_ROW_mxfp4)
        return product(code, read_e8m0(scale));
    return (scale & 0x7f) == 0x7f ? NAN_BITS : bits(code * oracle_value(oracle_e4m3, scale) * global);
}

static uint32_t row_value(kvt_row_format format, const unsigned char *row, uint32_t dim, uint32_t c)
{
    switch (format) {
    case KVT_ROW_ik_q8_kv:
        return product((int8_t)row[8 + c], read_f32(get(row, 4)));
    case KVT_ROW_vllm_int8:
        return product((int8_t)row[c], read_f32(get(row + dim, 4)));
    case KVT_ROW_vllm_fp8:
        return e4m3_value(row[c], read_f32(get(row + dim, 4)));
    case KVT_ROW_vllm_int4: {
        uint32_t stored = get(row + (dim + 1) / 2, 4);
        return product((double)get_nibble(row + c / 2, c % 2) - (stored & 15), read_f32(stored & 0xfffffff0));
    }
    default: { /* OpenVINO */
        read_scale s = read_f32(get(row, 4));
        uint32_t stored = get(row + 4, 4), code = format == KVT_ROW_openvino_u8 ? row[8 + c] : get_nibble(row + 8 + c / 2, c % 2 == 0);
        if (s.nan || !is_finite(stored))
            return NAN_BITS;
        double z = fabs(number(stored)) < 0x1p-24 ? 0 : number(stored);
        return bits(f((double)code - z) * (fabs(s.value) < 0x1p-100 ? 0 : s.value));
    }
    }
}

void reference_decode(kvt_row_format format, uint32_t dim, const unsigned char *row, uint32_t *x, float global)
{
    const shape *s = shape_of(format);
    uint32_t blocks = blocks_of(s, dim), code_bytes = s->block_bytes - (format == KVT_ROW_deepseek_fp8 ? 4 : 1);
    for (uint32_t c = 0; c < dim; c++) {
        uint32_t i = c / s->block;
        if (!is_of_blocks(format))
            x[c] = row_value(format, row, dim, c);
        else if (format == KVT_ROW_deepseek_fp8)
            x[c] = e4m3_value(row[c], read_f32(get(row + blocks * code_bytes + 4 * i, 4)));
        else if (has_scales_last(format))
            x[c] = ocp_value(format, row + i * code_bytes, row[blocks * code_bytes + i], c % s->block, global);
        else
            x[c] = block_value(format, row + i * s->block_bytes, c % s->block);
    }
}
