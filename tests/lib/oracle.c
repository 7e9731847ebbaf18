/* SPDX-License-Identifier: MIT */
#include "oracle.h"

#include <math.h>
#include <string.h>

const oracle_format oracle_f32 = { 8, 23 };
const oracle_format oracle_f16 = { 5, 10 };
const oracle_format oracle_bf16 = { 8, 7 };
const oracle_format oracle_e4m3 = { 4, 3 };
const oracle_format oracle_e5m2 = { 5, 2 };

static const uint32_t quiet_nan = 0x7fc00000;

/* ---- numbers --------------------------------------------------------------------------------------------------------------------- */

static double power_of_2(int exponent)
{
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int exponent_of(double positive)
{
    uint64_t bits;
    memcpy(&bits, &positive, sizeof bits);
    return (int)(bits >> 52) - 1023;
}

/* Round to nearest, ties to even. */
static int64_t nearest_integer(double x)
{
    bool negative = x < 0;
    double a = negative ? -x : x;
    int64_t n = (int64_t)a;
    double rest = a - (double)n;
    if (rest > 0.5 || (rest == 0.5 && n % 2 != 0))
        n++;
    return negative ? -n : n;
}

static uint32_t sign_bit(oracle_format f)
{
    return UINT32_C(1) << (f.exp_bits + f.man_bits);
}
static uint32_t infinity_bits(oracle_format f)
{
    return ((UINT32_C(1) << f.exp_bits) - 1) << f.man_bits;
}
static int smallest_exponent(oracle_format f)
{
    return 2 - (1 << (f.exp_bits - 1));
} /* of a normal number */

/* What is too large becomes this: an infinity, but the FP8 formats saturate at their largest number, 448 (0x7e: e4m3 has numbers where others have
 * infinities and NaN) or 57344 (0x7b). */
static uint32_t largest_bits(oracle_format f)
{
    if (f.man_bits == oracle_e4m3.man_bits)
        return 0x7e;
    return f.man_bits == oracle_e5m2.man_bits ? 0x7b : infinity_bits(f);
}

static bool is_finite(uint32_t f32)
{
    return (f32 & 0x7fffffff) < 0x7f800000;
}

/* What follows works for every format and any rounding environment. Where a binary32 number and the double are both normal the machine's conversion
 * does the same in one step (FTZ and DAZ are about subnormals), and most of the oracle's time is spent there. */
static bool is_binary32(oracle_format f)
{
    return f.exp_bits == 8 && f.man_bits == 23;
}

double oracle_value(oracle_format f, uint32_t bits)
{
    if (is_binary32(f) && (bits & 0x7f800000) != 0 && is_finite(bits)) {
        float x;
        memcpy(&x, &bits, sizeof x);
        return (double)x;
    }
    uint32_t exponent = (bits >> f.man_bits) & ((UINT32_C(1) << f.exp_bits) - 1);
    uint32_t mantissa = bits & ((UINT32_C(1) << f.man_bits) - 1);
    int power = smallest_exponent(f);
    if (exponent > 0) {
        mantissa += UINT32_C(1) << f.man_bits;
        power += (int)exponent - 1;
    }
    double magnitude = (double)mantissa * power_of_2(power - (int)f.man_bits);
    return bits & sign_bit(f) ? -magnitude : magnitude;
}

uint32_t oracle_round(oracle_format f, double value)
{
    uint32_t sign = signbit(value) ? sign_bit(f) : 0;
    double a = sign ? -value : value;
    if (is_binary32(f) && a >= 0x1p-125 && a < 0x1p127) {
        float x = (float)value;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        return bits;
    }
    if (a == 0)
        return sign;
    uint32_t largest = largest_bits(f);
    if (a > power_of_2(1000))
        return sign | largest;
    /* Around a, the numbers of the format are the multiples of a step; counting the steps gives the bits. */
    int least = smallest_exponent(f);
    int power = exponent_of(a) > least ? exponent_of(a) : least;
    int64_t steps = nearest_integer(a * power_of_2((int)f.man_bits - power));
    int64_t code = ((int64_t)(power - least) << f.man_bits) + steps;
    return sign | (code < largest ? (uint32_t)code : largest);
}

bool oracle_is_nan(oracle_format f, uint32_t bits)
{
    return (bits & (sign_bit(f) - 1)) > infinity_bits(f);
}

uint32_t oracle_narrow(oracle_format f, uint32_t f32)
{
    if (is_finite(f32))
        return oracle_round(f, oracle_value(oracle_f32, f32));
    uint32_t special = (f32 >> 31 ? sign_bit(f) : 0) | infinity_bits(f);
    if (oracle_is_nan(oracle_f32, f32))
        special |= (UINT32_C(1) << (f.man_bits - 1)) | ((f32 & 0x7fffff) >> (23 - f.man_bits));
    return special;
}

uint32_t oracle_widen(oracle_format f, uint32_t bits)
{
    uint32_t magnitude = bits & (sign_bit(f) - 1);
    if (magnitude < infinity_bits(f))
        return oracle_round(oracle_f32, oracle_value(f, bits));
    uint32_t mantissa = (magnitude - infinity_bits(f)) << (23 - f.man_bits);
    uint32_t special = (bits & sign_bit(f) ? 0x80000000 : 0) | 0x7f800000 | mantissa;
    if (mantissa != 0 && f.exp_bits == oracle_f16.exp_bits) /* bf16 is widened "exactly" */
        special |= 0x400000;
    return special;
}

/* Any binary32 number as a double, infinity and NaN included, and back: a NaN becomes the quiet one. */
static double number(uint32_t f32)
{
    if (is_finite(f32))
        return oracle_value(oracle_f32, f32);
    if (oracle_is_nan(oracle_f32, f32))
        return (double)NAN;
    return f32 >> 31 ? -(double)INFINITY : (double)INFINITY;
}
static uint32_t rounded(double value)
{
    return isnan(value) ? quiet_nan : oracle_round(oracle_f32, value);
}

/* One binary32 operation. The double result is exact (products), or has more than twice the bits of a binary32 number, and then rounding it again
 * gives what rounding once would (sums; quotients that are not subnormal: all that is used). */
static uint32_t divide(uint32_t a, uint32_t b)
{
    return rounded(number(a) / number(b));
}
static uint32_t multiply(uint32_t a, uint32_t b)
{
    return rounded(number(a) * number(b));
}
static uint32_t add(uint32_t a, uint32_t b)
{
    return rounded(number(a) + number(b));
}
static uint32_t subtract(uint32_t a, uint32_t b)
{
    return rounded(number(a) - number(b));
}

/* Sections 6 and 7: "a number with |x| < 2^-96 counts as +0". */
static uint32_t without_tiny(uint32_t f32)
{
    return fabs(number(f32)) < power_of_2(-96) ? 0 : f32;
}

/* ---- layout ---------------------------------------------------------------------------------------------------------------------- */

static const struct {
    kvt_scheme scheme;
    uint32_t bits, block, scale_bytes;
} schemes[] = {
    { KVT_SCHEME_f32, 32, 0, 0 },
    { KVT_SCHEME_f16, 16, 0, 0 },
    { KVT_SCHEME_bf16, 16, 0, 0 },
    { KVT_SCHEME_q8_0, 8, 32, 2 },
    { KVT_SCHEME_q4_0, 4, 32, 2 },
    { KVT_SCHEME_e4m3, 8, KVT_BLOCK_ROW, 4 },
    { KVT_SCHEME_e5m2, 8, KVT_BLOCK_ROW, 4 },
    { KVT_SCHEME_kv8, 8, KVT_BLOCK_ROW, 2 },
    { KVT_SCHEME_kv6, 6, 32, 1 },
    { KVT_SCHEME_kv5, 5, 32, 1 },
    { KVT_SCHEME_kv4, 4, 32, 1 },
    { KVT_SCHEME_kv4h, 4, 16, 1 },
    { KVT_SCHEME_kv3, 3, 32, 1 },
    { KVT_SCHEME_kv2, 2, 32, 1 },
};
static const size_t n_schemes = sizeof schemes / sizeof schemes[0];

/* Codes of 6 bits and less, from the lowest bit up. */
static const struct {
    uint32_t bits;
    uint32_t plane[2]; /* 0 = no second plane */
} splits[] = { { 6, { 4, 2 } }, { 5, { 4, 1 } }, { 4, { 4, 0 } }, { 3, { 2, 1 } }, { 2, { 2, 0 } } };

bool oracle_knows(kvt_scheme scheme)
{
    for (size_t i = 0; i < n_schemes; i++)
        if (schemes[i].scheme == scheme)
            return true;
    return false;
}

static bool is_fp8(kvt_scheme scheme)
{
    return scheme == KVT_SCHEME_e4m3 || scheme == KVT_SCHEME_e5m2;
}

static void side_init(oracle_side *side, kvt_scheme scheme, uint32_t dim, const kvt_side_options *options, size_t offset)
{
    memset(side, 0, sizeof *side);
    side->scheme = scheme;
    side->dim = dim;
    side->padded_dim = 16 * ((dim + 15) / 16);
    side->options = *options;
    for (size_t i = 0; i < n_schemes; i++) {
        if (schemes[i].scheme == scheme) {
            side->bits = schemes[i].bits;
            side->block = schemes[i].block == KVT_BLOCK_ROW ? side->padded_dim : schemes[i].block;
            side->scale_bytes = schemes[i].scale_bytes;
        }
    }
    if (is_fp8(scheme)) {
        if (options->fp8_block == KVT_BLOCK_TENSOR)
            side->block = 0;
        else if (options->fp8_block != 0)
            side->block = options->fp8_block;
        side->scale_bytes = side->block == 0 ? 0 : options->fp8_scale == KVT_FP8_SCALE_E8M0 ? 1 : 4;
    }
    side->blocks = side->block == 0 ? 0 : (side->padded_dim + side->block - 1) / side->block;

    /* A tile's codes: lines of 64 bytes, four bytes for each of its 16 tokens. */
    size_t lines = (size_t)side->padded_dim * side->bits / 32;
    for (size_t i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        if (splits[i].bits == side->bits) {
            lines = 0;
            for (size_t p = 0; p < 2 && splits[i].plane[p] != 0; p++) {
                uint32_t bits = splits[i].plane[p];
                side->planes[p] = (oracle_plane){ bits, 64 * lines };
                side->n_planes++;
                lines += bits == 1 ? (side->padded_dim + 31) / 32 : side->padded_dim * bits / 32;
            }
        }
    }
    side->tile_code_bytes = 64 * lines;
    side->tile_scale_bytes = 16 * side->blocks * side->scale_bytes;
    side->row_bytes = (side->tile_code_bytes + side->tile_scale_bytes) / 16;
    side->codes_offset = offset;
    side->scales_offset = offset + 4 * side->tile_code_bytes;
    if (options->centring != KVT_CENTRING_NONE)
        side->centre_bytes = side->padded_dim + 2 * ((side->padded_dim + 31) / 32);
}

void oracle_layout_init(oracle_layout *layout, const kvt_spec *spec)
{
    memset(layout, 0, sizeof *layout);
    oracle_side *k = &layout->side[KVT_K], *v = &layout->side[KVT_V];
    side_init(k, spec->k_scheme, spec->k_dim, &spec->k_options, 0);
    layout->token_bytes = k->row_bytes;
    if (spec->v_dim != 0) {
        side_init(v, spec->v_scheme, spec->v_dim, &spec->v_options, 64 * layout->token_bytes);
        layout->token_bytes += v->row_bytes;
    }
    k->centre_offset = 64 * layout->token_bytes;
    v->centre_offset = spec->v_dim != 0 ? k->centre_offset + k->centre_bytes : 0;
    layout->page_bytes = 64 * layout->token_bytes + 64 * ((k->centre_bytes + v->centre_bytes + 63) / 64);
}

/* ---- places ---------------------------------------------------------------------------------------------------------------------- */

/* The first table of docs/formats.md, section 2: t is the token in the tile, the place is counted from the start of the line. */
static void place_of_code(kvt_side which, uint32_t bits, uint32_t t, uint32_t c, uint32_t *line, uint32_t *place)
{
    uint32_t cell = which == KVT_K ? t : c % 16, strip = c / 16, inside = 0;
    switch (bits) {
    case 32:
        *line = which == KVT_K ? c : 16 * strip + t;
        break;
    case 16:
        *line = which == KVT_K ? c / 2 : 8 * strip + t / 2;
        inside = 2 * (which == KVT_K ? c % 2 : t % 2);
        break;
    default:
        *line = which == KVT_K ? c / 4 : 4 * strip + t / 4;
        inside = which == KVT_K ? c % 4 : t % 4;
        break;
    }
    *place = 4 * cell + inside;
}

static size_t tile_codes(const oracle_side *side, uint32_t token)
{
    return side->codes_offset + token / 16 * side->tile_code_bytes;
}

/* The place in the page of a code of whole bytes. */
static size_t code_byte(const oracle_side *side, kvt_side which, uint32_t token, uint32_t channel)
{
    uint32_t line, place;
    place_of_code(which, side->bits, token % 16, channel, &line, &place);
    return tile_codes(side, token) + 64 * (size_t)line + place;
}

/* The place in the page of the byte that has the bits of one plane, and where they begin in it. */
static size_t plane_byte(const oracle_side *side, kvt_side which, const oracle_plane *plane, uint32_t token, uint32_t channel, unsigned *shift)
{
    uint32_t line, place, lines = 8 / plane->bits; /* of 8 bits that share one line of the plane */
    place_of_code(which, 8, token % 16, channel, &line, &place);
    *shift = plane->bits * (line % lines);
    return tile_codes(side, token) + plane->offset + 64 * (size_t)(line / lines) + place;
}

static void put_code(const oracle_side *side, kvt_side which, unsigned char *page, uint32_t token, uint32_t channel, uint32_t code)
{
    if (side->n_planes == 0)
        oracle_store(page + code_byte(side, which, token, channel), side->bits / 8, code);
    for (uint32_t p = 0; p < side->n_planes; p++) {
        uint32_t mask = (1U << side->planes[p].bits) - 1;
        unsigned shift;
        unsigned char *at = page + plane_byte(side, which, &side->planes[p], token, channel, &shift);
        *at = (unsigned char)((*at & ~(mask << shift)) | (code & mask) << shift);
        code >>= side->planes[p].bits;
    }
}

static uint32_t get_code(const oracle_side *side, kvt_side which, const unsigned char *page, uint32_t token, uint32_t channel)
{
    if (side->n_planes == 0)
        return oracle_load(page + code_byte(side, which, token, channel), side->bits / 8);
    uint32_t code = 0;
    unsigned low = 0;
    for (uint32_t p = 0; p < side->n_planes; p++) {
        uint32_t mask = (1U << side->planes[p].bits) - 1;
        unsigned shift;
        uint32_t byte = page[plane_byte(side, which, &side->planes[p], token, channel, &shift)];
        code |= (byte >> shift & mask) << low;
        low += side->planes[p].bits;
    }
    return code;
}

/* "A token that is written makes [the unused bits of a 1-bit plane] in its byte or bytes zero." */
static void clear_unused(const oracle_side *side, kvt_side which, unsigned char *page, uint32_t token)
{
    for (uint32_t p = 0; p < side->n_planes; p++) {
        if (side->planes[p].bits == 1 && side->padded_dim % 32 == 16) {
            unsigned char *line = page + tile_codes(side, token) + side->planes[p].offset + (size_t)64 * (side->padded_dim / 32);
            for (size_t i = 0; i < 64; i++)
                if (which == KVT_K ? i / 4 == token % 16 : i % 4 == token % 4)
                    line[i] &= 0x0f;
        }
    }
}

static size_t scale_byte(const oracle_side *side, uint32_t token, uint32_t block)
{
    return side->scales_offset + token / 16 * side->tile_scale_bytes + (16 * (size_t)block + token % 16) * side->scale_bytes;
}

/* ---- encoders -------------------------------------------------------------------------------------------------------------------- */

/* Rule 3 of q8_0: 0 = the scale would be zero, 2 = the block cannot be represented, 1 = neither. */
static int scale_class(uint32_t magnitude)
{
    if (!is_finite(magnitude))
        return 2;
    double d = oracle_value(oracle_f32, magnitude);
    return d <= power_of_2(-25) ? 0 : d >= 65520 ? 2 : 1;
}

static const uint32_t f32_one = 0x3f800000;

static void encode_q8_0(const uint32_t *x, uint32_t n, uint32_t *codes, uint32_t *scale)
{
    uint32_t amax = 0;
    for (uint32_t i = 0; i < n; i++)
        if ((x[i] & 0x7fffffff) > amax)
            amax = x[i] & 0x7fffffff;
    uint32_t d = is_finite(amax) ? divide(amax, oracle_round(oracle_f32, 127)) : amax;
    int class = scale_class(d);
    if (class != 1) {
        *scale = class == 0 ? 0 : 0x7e00;
        memset(codes, 0, n * sizeof *codes);
        return;
    }
    *scale = oracle_narrow(oracle_f16, d);
    uint32_t r = divide(f32_one, d);
    for (uint32_t i = 0; i < n; i++)
        codes[i] = (uint32_t)nearest_integer(oracle_value(oracle_f32, multiply(x[i], r))) & 0xff;
}

static void encode_q4_0(const uint32_t *x, uint32_t n, uint32_t *codes, uint32_t *scale)
{
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rotated = x[i] << 1 | x[i] >> 31;
        if (rotated > (m << 1 | m >> 31))
            m = x[i];
    }
    uint32_t d = is_finite(m) ? divide(m, oracle_round(oracle_f32, -8)) : m;
    int class = scale_class(d & 0x7fffffff);
    if (class != 1) {
        *scale = class == 0 ? 0 : 0x7e00;
        for (uint32_t i = 0; i < n; i++)
            codes[i] = 8;
        return;
    }
    *scale = oracle_narrow(oracle_f16, d);
    uint32_t r = divide(f32_one, d);
    for (uint32_t i = 0; i < n; i++) {
        double product = oracle_value(oracle_f32, multiply(x[i], r));
        double sum = oracle_value(oracle_f32, oracle_round(oracle_f32, product + 8.5));
        uint32_t code = (uint32_t)sum; /* 0.5 and more: truncation is floor */
        codes[i] = code < 15 ? code : 15;
    }
}

/* One block of e4m3 or e5m2: codes, and the scale's bits (of the tensor scale: none). */
static void encode_fp8(const oracle_side *side, const uint32_t *x, uint32_t n, uint32_t *codes, uint32_t *scale)
{
    bool e4m3 = side->scheme == KVT_SCHEME_e4m3;
    uint32_t max = oracle_round(oracle_f32, e4m3 ? 448 : 57344), amax = 0, r = 0;
    for (uint32_t i = 0; i < n; i++)
        if (is_finite(x[i]) && (x[i] & 0x7fffffff) > amax)
            amax = x[i] & 0x7fffffff;
    bool tiny = number(amax) < power_of_2(e4m3 ? -100 : -92);
    if (side->blocks == 0) {
        r = divide(f32_one, oracle_round(oracle_f32, (double)side->options.fp8_tensor_scale));
    } else if (side->options.fp8_scale == KVT_FP8_SCALE_E8M0) {
        *scale = 27;
        if (!tiny) {
            uint32_t d = divide(amax, max), byte = (d >> 23) + ((d & 0x7fffff) != 0 ? 1 : 0);
            *scale = byte > 27 ? byte : 27;
        }
        r = oracle_round(oracle_f32, power_of_2(127 - (int)*scale));
    } else {
        *scale = 0;
        if (!tiny) {
            *scale = divide(amax, max);
            r = divide(f32_one, *scale);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        codes[i] = x[i] >> 31 ? 0x80 : 0;
        if (oracle_is_nan(oracle_f32, x[i]))
            codes[i] |= e4m3 ? 0x7f : 0x7e;
        else if (!is_finite(x[i]))
            codes[i] |= e4m3 ? 0x7e : 0x7c;
        else
            codes[i] |= oracle_round(e4m3 ? oracle_e4m3 : oracle_e5m2, number(multiply(x[i] & 0x7fffffff, r)));
    }
}

/* ---- the kv schemes: a table and signed scales of 8 bits ---- */

typedef struct search {
    int first, step;
} search;

typedef struct kv_scheme {
    kvt_scheme scheme;
    int levels;
    search by_default, best;
    int fast;
    int table[64];
} kv_scheme;

static const kv_scheme kv_schemes[] = {
    { KVT_SCHEME_kv6, 64, { 0, 1 }, { -4, 1 }, 4, { -127, -120, -113, -106, -101, -96, -93, -88, -83, -78, -73, -68, -63, -60, -57, -54,
                                                    -51,  -48,  -45,  -42,  -39,  -36, -33, -30, -27, -24, -21, -18, -15, -12, -9,  -6,
                                                    -3,   0,    3,    6,    9,    12,  15,  18,  21,  24,  27,  30,  33,  36,  39,  42,
                                                    45,   48,   51,   54,   57,   60,  65,  68,  73,  78,  83,  88,  93,  100, 105, 112 } },
    { KVT_SCHEME_kv5, 32, { 0, 1 }, { -4, 1 }, 2, { -127, -116, -101, -88, -77, -68, -59, -52, -45, -38, -31, -26, -19, -14, -9,  -4,
                                                    1,    6,    11,   16,  23,  28,  35,  42,  49,  56,  63,  72,  81,  90,  101, 120 } },
    { KVT_SCHEME_kv4, 16, { -3, 1 }, { -8, 1 }, 0, { -127, -92, -73, -56, -41, -28, -15, -4, 7, 18, 29, 42, 55, 70, 89, 112 } },
    { KVT_SCHEME_kv4h, 16, { -1, 1 }, { -8, 1 }, 0, { -127, -88, -69, -54, -41, -28, -15, -4, 7, 18, 29, 42, 57, 72, 91, 114 } },
    { KVT_SCHEME_kv3, 8, { -4, 1 }, { -8, 1 }, 0, { -127, -76, -43, -16, 9, 36, 65, 104 } },
    { KVT_SCHEME_kv2, 4, { -11, 2 }, { -12, 1 }, 0, { -127, -44, 19, 92 } },
};

static const kv_scheme *kv_find(kvt_scheme scheme)
{
    for (size_t i = 0; i < sizeof kv_schemes / sizeof kv_schemes[0]; i++)
        if (kv_schemes[i].scheme == scheme)
            return &kv_schemes[i];
    return NULL;
}

static int limited(int64_t x, int low, int high)
{
    return x < low ? low : x > high ? high : (int)x;
}

/* The number of i with 2y > T[i] + T[i+1]; the sums ascend. */
static uint32_t near_level(const kv_scheme *kv, int y)
{
    int n = 0;
    while (n + 1 < kv->levels && 2 * y > kv->table[n] + kv->table[n + 1])
        n++;
    return (uint32_t)n;
}

/* s(0) of u(0) = 1..254. */
static double kv_first_scale(uint32_t u)
{
    return (1 + (u & 7) / 8.0) * power_of_2((int)(u >> 3) - 22);
}

/* s(b), b > 0, of u(b), with the exponent E of the row. */
static double kv_other_scale(uint32_t u, uint32_t exponent)
{
    uint32_t m = u & 127;
    if (m == 0)
        return 0;
    double s = (1 + (m & 15) / 16.0) * power_of_2((int)(m >> 4) + (int)exponent - 26);
    return u >= 128 ? -s : s;
}

typedef struct kv_block {
    const kv_scheme *kv;
    const uint32_t *x;
    uint32_t n;
    uint32_t amax;      /* bits of the largest |x| */
    uint32_t d;         /* bits of amax / 127 */
    uint32_t p;         /* bits of 2047 / amax */
    int64_t scaled[32]; /* X(c) */
} kv_block;

/* What a candidate s (of either sign) makes of a block: steps 5's A and N. */
typedef struct kv_fit {
    uint32_t p, g; /* bits */
    int64_t a, n;
} kv_fit;

static kv_fit kv_try(const kv_block *block, double s)
{
    kv_fit fit = { .p = block->p };
    fit.g = multiply(oracle_round(oracle_f32, fabs(s)), fit.p);
    int64_t m = nearest_integer(number(divide(oracle_round(oracle_f32, 32768), fit.g)));
    if (m > 32767)
        m = 32767;
    for (uint32_t c = 0; c < block->n; c++) {
        int64_t x = block->scaled[c];
        int64_t product = x * m + 16384;
        int64_t y = product >= 0 ? product / 32768 : -((32767 - product) / 32768); /* an arithmetic shift: downwards */
        y = limited(y, -128, 127);
        if (s < 0)
            y = -y < 127 ? -y : 127;
        int v = block->kv->table[near_level(block->kv, (int)y)];
        fit.a += s < 0 ? -x * v : x * v;
        fit.n += v * v;
    }
    return fit;
}

static double kv_gain(const kv_fit *fit)
{
    uint32_t two_a = oracle_round(oracle_f32, (double)(2 * fit->a)), n = oracle_round(oracle_f32, (double)fit->n);
    return number(multiply(fit->g, subtract(two_a, multiply(fit->g, n))));
}

/* Whether the element of largest magnitude is negative; of +a and -a the negative one counts. */
static bool kv_reaches_down(const kv_block *block)
{
    for (uint32_t c = 0; c < block->n; c++)
        if (block->x[c] == (0x80000000 | block->amax))
            return true;
    return false;
}

/* Steps 3 to 6 for block 0, whose scales are u(0) = low..254. */
static uint32_t kv_search_first(const kv_block *block, kvt_effort effort, int low)
{
    if (number(block->amax) < power_of_2(-20))
        return (uint32_t)low;
    int j = (int)(block->d >> 20) - (105 << 3);
    if (effort == KVT_EFFORT_FAST) {
        int u = limited(j + block->kv->fast, low, 254);
        kv_fit fit = kv_try(block, kv_first_scale((uint32_t)u));
        if (fit.a <= 0)
            return (uint32_t)u;
        uint32_t f = divide(divide(oracle_round(oracle_f32, (double)fit.a), oracle_round(oracle_f32, (double)fit.n)), fit.p);
        return (uint32_t)limited((int)((f + (1U << 19)) >> 20) - (105 << 3), low, 254);
    }
    search w = effort == KVT_EFFORT_BEST ? block->kv->best : block->kv->by_default;
    uint32_t best = 0;
    double best_gain = 0;
    for (int i = 0; i < (effort == KVT_EFFORT_BEST ? 16 : 8); i++) {
        uint32_t u = (uint32_t)limited(j + w.first + i * w.step, low, 254);
        kv_fit fit = kv_try(block, kv_first_scale(u));
        double gain = kv_gain(&fit);
        if (i == 0 || gain > best_gain) {
            best = u;
            best_gain = gain;
        }
    }
    return best;
}

/* The same for a block b > 0. */
static uint32_t kv_search_other(const kv_block *block, kvt_effort effort, uint32_t exponent)
{
    int base = (101 + (int)exponent) << 4, j = (int)(block->d >> 19) - base;
    if (j <= -32 || number(block->amax) < power_of_2(-20))
        return 0;
    if (effort == KVT_EFFORT_FAST) {
        uint32_t sign = kv_reaches_down(block) ? 0 : 128, m = (uint32_t)limited(j + block->kv->fast, 1, 127);
        kv_fit fit = kv_try(block, kv_other_scale(sign + m, exponent));
        if (fit.a <= 0)
            return sign + m;
        uint32_t f = divide(divide(oracle_round(oracle_f32, (double)fit.a), oracle_round(oracle_f32, (double)fit.n)), fit.p);
        return sign + (uint32_t)limited((int)((f + (1U << 18)) >> 19) - base, 1, 127);
    }
    search w = effort == KVT_EFFORT_BEST ? block->kv->best : block->kv->by_default;
    uint32_t best = 0;
    double best_gain = 0;
    for (int i = 0; i < (effort == KVT_EFFORT_BEST ? 16 : 8); i++) {
        for (uint32_t sign = 0; sign <= 128; sign += 128) {
            uint32_t u = sign + (uint32_t)limited(j + w.first + i * w.step, 1, 127);
            kv_fit fit = kv_try(block, kv_other_scale(u, exponent));
            double gain = kv_gain(&fit);
            if ((i == 0 && sign == 0) || gain > best_gain) {
                best = u;
                best_gain = gain;
            }
        }
    }
    return best;
}

static void encode_kv(const oracle_side *side, const uint32_t *x, uint32_t *codes, uint32_t *scales)
{
    const kv_scheme *kv = kv_find(side->scheme);
    kv_block blocks[KVT_MAX_DIM / 16];
    uint32_t largest = 0, largest_d = 0;
    for (uint32_t b = 0; b < side->blocks; b++) {
        uint32_t begin = b * side->block;
        kv_block *block = &blocks[b];
        *block = (kv_block){ .kv = kv, .x = x + begin };
        block->n = side->padded_dim - begin < side->block ? side->padded_dim - begin : side->block;
        for (uint32_t c = 0; c < block->n; c++)
            if ((block->x[c] & 0x7fffffff) > block->amax)
                block->amax = block->x[c] & 0x7fffffff;
        if (block->amax > largest)
            largest = block->amax;
    }
    bool fits = is_finite(largest) && number(largest) < power_of_2(16);
    if (!fits || number(largest) < power_of_2(-20)) {
        memset(scales, 0, side->blocks * sizeof *scales);
        scales[0] = fits ? 0 : 255;
        for (uint32_t c = 0; c < side->padded_dim; c++)
            codes[c] = near_level(kv, 0);
        return;
    }
    for (uint32_t b = 0; b < side->blocks; b++) {
        blocks[b].d = divide(blocks[b].amax, oracle_round(oracle_f32, 127));
        if (number(blocks[b].amax) >= power_of_2(-20)) { /* others are not searched for */
            blocks[b].p = divide(oracle_round(oracle_f32, 2047), blocks[b].amax);
            for (uint32_t c = 0; c < blocks[b].n; c++)
                blocks[b].scaled[c] = nearest_integer(number(multiply(blocks[b].x[c], blocks[b].p)));
        }
        if (blocks[b].d > largest_d)
            largest_d = blocks[b].d;
    }
    int low = ((int)(largest_d >> 23) - 105 - 3) * 8;
    scales[0] = kv_search_first(&blocks[0], side->options.effort, low > 1 ? low : 1);
    for (uint32_t b = 1; b < side->blocks; b++)
        scales[b] = kv_search_other(&blocks[b], side->options.effort, scales[0] >> 3);
    for (uint32_t b = 0; b < side->blocks; b++) {
        double s = b == 0 ? kv_first_scale(scales[0]) : kv_other_scale(scales[b], scales[0] >> 3);
        uint32_t r = s == 0 ? 0 : divide(f32_one, oracle_round(oracle_f32, s));
        for (uint32_t c = 0; c < blocks[b].n; c++) {
            int64_t y = nearest_integer(number(multiply(blocks[b].x[c], r)));
            codes[b * side->block + c] = near_level(kv, limited(y, -128, 127));
        }
    }
}

void oracle_encode(const oracle_side *side, const uint32_t *x, uint32_t *codes, uint32_t *scales)
{
    if (kv_find(side->scheme) != NULL) {
        encode_kv(side, x, codes, scales);
        return;
    }
    if (is_fp8(side->scheme) && side->blocks == 0) {
        encode_fp8(side, x, side->padded_dim, codes, NULL);
        return;
    }
    for (uint32_t b = 0; b < side->blocks; b++) {
        uint32_t begin = b * side->block;
        uint32_t n = side->padded_dim - begin < side->block ? side->padded_dim - begin : side->block;
        switch (side->scheme) {
        case KVT_SCHEME_q8_0:
        case KVT_SCHEME_kv8:
            encode_q8_0(x + begin, n, codes + begin, &scales[b]);
            break;
        case KVT_SCHEME_q4_0:
            encode_q4_0(x + begin, n, codes + begin, &scales[b]);
            break;
        default:
            encode_fp8(side, x + begin, n, codes + begin, &scales[b]);
            break;
        }
    }
    if (side->blocks == 0) {
        for (uint32_t c = 0; c < side->padded_dim; c++) {
            if (side->scheme == KVT_SCHEME_f32)
                codes[c] = x[c];
            else
                codes[c] = oracle_narrow(side->scheme == KVT_SCHEME_f16 ? oracle_f16 : oracle_bf16, x[c]);
        }
    }
}

/* ---- decoders -------------------------------------------------------------------------------------------------------------------- */

/* code value times scale, in binary32; both are known to be exact as doubles, and so is their product */
static double scaled_above(int least, double code, double scale, uint32_t *f32)
{
    if (!isfinite(scale)) {
        *f32 = quiet_nan;
        return (double)NAN;
    }
    double s = fabs(scale) < power_of_2(least) ? 0 : scale;
    *f32 = oracle_round(oracle_f32, code * s);
    return code * s;
}
static double scaled(double code, double scale, uint32_t *f32)
{
    return scaled_above(-117, code, scale, f32);
}

static double decode_fp8(const oracle_side *side, uint32_t code, uint32_t scale, uint32_t *f32)
{
    double s = number(scale);
    if (side->blocks == 0)
        s = (double)side->options.fp8_tensor_scale;
    else if (side->options.fp8_scale == KVT_FP8_SCALE_E8M0)
        s = scale == 0xff ? (double)NAN : power_of_2((int)scale - 127);
    bool e4m3 = side->scheme == KVT_SCHEME_e4m3;
    if ((code & 0x7f) > (e4m3 ? 0x7e : 0x7c))
        return scaled(0, (double)NAN, f32);
    if (!e4m3 && (code & 0x7f) == 0x7c && isfinite(s)) {
        *f32 = (code & 0x80) << 24 | 0x7f800000;
        return number(*f32);
    }
    return scaled_above(e4m3 ? -117 : -110, oracle_value(e4m3 ? oracle_e4m3 : oracle_e5m2, code), s, f32);
}

static double decode_kv(const oracle_side *side, const unsigned char *page, uint32_t token, uint32_t channel, uint32_t code, uint32_t *f32)
{
    uint32_t block = channel / side->block, first = page[scale_byte(side, token, 0)];
    double s;
    if (first == 0)
        s = 0;
    else if (first == 255)
        s = (double)NAN;
    else if (block == 0)
        s = kv_first_scale(first);
    else
        s = kv_other_scale(page[scale_byte(side, token, block)], first >> 3);
    return scaled(kv_find(side->scheme)->table[code], s, f32);
}

double oracle_decode(const oracle_side *side, kvt_side which, const unsigned char *page, uint32_t token, uint32_t channel, uint32_t *f32)
{
    uint32_t code = get_code(side, which, page, token, channel);
    if (kv_find(side->scheme) != NULL)
        return decode_kv(side, page, token, channel, code, f32);
    uint32_t scale = 0;
    if (side->blocks > 0)
        scale = oracle_load(page + scale_byte(side, token, channel / side->block), side->scale_bytes);
    switch (side->scheme) {
    case KVT_SCHEME_q8_0:
    case KVT_SCHEME_kv8:
        return scaled(code < 128 ? (double)code : (double)code - 256, number(oracle_widen(oracle_f16, scale)), f32);
    case KVT_SCHEME_q4_0:
        return scaled((double)code - 8, number(oracle_widen(oracle_f16, scale)), f32);
    case KVT_SCHEME_e4m3:
    case KVT_SCHEME_e5m2:
        return decode_fp8(side, code, scale, f32);
    default:
        *f32 = side->scheme == KVT_SCHEME_f32 ? code : oracle_widen(side->scheme == KVT_SCHEME_f16 ? oracle_f16 : oracle_bf16, code);
        return number(*f32);
    }
}

/* ---- rotation -------------------------------------------------------------------------------------------------------------------- */

static bool changes_sign(uint32_t c)
{
    static const uint64_t words[2] = { UINT64_C(0x243f6a8885a308d3), UINT64_C(0x13198a2e03707344) };
    return words[c / 64 % 2] >> (c % 64) & 1;
}

static uint32_t rotation_block(const oracle_side *side, uint32_t begin)
{
    uint32_t n = (uint32_t)side->options.rotation;
    while (n > side->padded_dim - begin)
        n /= 2;
    return n;
}

/* Steps 2 and 3. */
static void hadamard(uint32_t *x, uint32_t n)
{
    for (uint32_t h = 1; h < n; h *= 2) {
        for (uint32_t i = 0; i < n; i++) {
            if ((i & h) == 0) {
                uint32_t a = x[i], b = x[i + h];
                x[i] = add(a, b);
                x[i + h] = subtract(a, b);
            }
        }
    }
    uint32_t factor = n == 16 ? 0x3e800000 : n == 32 ? 0x3e3504f3 : n == 64 ? 0x3e000000 : 0x3db504f3;
    for (uint32_t i = 0; i < n; i++)
        x[i] = multiply(x[i], factor);
}

void oracle_rotate(const oracle_side *side, uint32_t *x)
{
    if (side->options.rotation == KVT_ROTATION_NONE)
        return;
    for (uint32_t c = 0; c < side->padded_dim; c++)
        x[c] = without_tiny(x[c]) ^ (changes_sign(c) ? 0x80000000 : 0);
    for (uint32_t begin = 0, n; begin < side->padded_dim; begin += n) {
        n = rotation_block(side, begin);
        hadamard(x + begin, n);
    }
}

void oracle_unrotate(const oracle_side *side, uint32_t *x)
{
    if (side->options.rotation == KVT_ROTATION_NONE)
        return;
    for (uint32_t c = 0; c < side->padded_dim; c++)
        x[c] = without_tiny(x[c]);
    for (uint32_t begin = 0, n; begin < side->padded_dim; begin += n) {
        n = rotation_block(side, begin);
        hadamard(x + begin, n);
    }
    for (uint32_t c = 0; c < side->padded_dim; c++)
        if (changes_sign(c) && !oracle_is_nan(oracle_f32, x[c]))
            x[c] ^= 0x80000000;
}

/* ---- centring -------------------------------------------------------------------------------------------------------------------- */

void oracle_centre(const oracle_side *side, const unsigned char *page, uint32_t *mu)
{
    const unsigned char *codes = page + side->centre_offset, *scales = codes + side->padded_dim;
    for (uint32_t c = 0; c < side->padded_dim; c++) {
        double code = codes[c] < 128 ? codes[c] : codes[c] - 256.0;
        double scale = number(oracle_widen(oracle_f16, oracle_load(scales + 2 * (size_t)(c / 32), 2)));
        scaled(code, isfinite(scale) ? scale : 0, &mu[c]);
    }
}

static void quantize_centre(const oracle_side *side, unsigned char *centre, const uint32_t *mu)
{
    uint32_t codes[32], scale;
    for (uint32_t begin = 0; begin < side->padded_dim; begin += 32) {
        uint32_t n = side->padded_dim - begin < 32 ? side->padded_dim - begin : 32;
        encode_q8_0(mu + begin, n, codes, &scale);
        for (uint32_t c = 0; c < n; c++)
            oracle_store(centre + begin + c, 1, codes[c]);
        oracle_store(centre + side->padded_dim + 2 * (size_t)(begin / 32), 2, scale);
    }
}

/* The centre of page p, from what is stored in page p - 1. */
static void write_centre(const oracle_side *side, kvt_side which, unsigned char *const *pages, size_t p)
{
    unsigned char *centre = pages[p] + side->centre_offset;
    if (p == 0) {
        memset(centre, 0, side->centre_bytes);
        return;
    }
    const unsigned char *before = pages[p - 1];
    if (p > 1 && side->options.centring == KVT_CENTRING_SEQUENCE) {
        memcpy(centre, before + side->centre_offset, side->centre_bytes);
        return;
    }
    uint32_t mu[KVT_MAX_DIM];
    oracle_centre(side, before, mu);
    for (uint32_t c = 0; c < side->padded_dim; c++) {
        uint32_t sum = 0;
        for (uint32_t token = 0; token < 64; token++) {
            uint32_t value;
            oracle_decode(side, which, before, token, c, &value);
            if (is_finite(value))
                sum = add(sum, without_tiny(value));
        }
        mu[c] = add(mu[c], multiply(sum, oracle_round(oracle_f32, power_of_2(-6))));
    }
    quantize_centre(side, centre, mu);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------------ */

oracle_format oracle_row_format(kvt_dtype dtype)
{
    return dtype == KVT_F32 ? oracle_f32 : dtype == KVT_F16 ? oracle_f16 : oracle_bf16;
}

size_t oracle_element_bytes(kvt_dtype dtype)
{
    return dtype == KVT_F32 ? 4 : 2;
}

uint32_t oracle_load(const unsigned char *element, size_t bytes)
{
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint32_t)element[i] << (8 * i);
    return value;
}

void oracle_store(unsigned char *element, size_t bytes, uint32_t value)
{
    for (size_t i = 0; i < bytes; i++)
        element[i] = (unsigned char)(value >> (8 * i));
}

/* "Where the stored number format is that of the rows bits are copied", unless there is something to be computed. */
static bool copies(const oracle_side *side, kvt_dtype dtype)
{
    kvt_scheme scheme = side->scheme;
    if (side->options.rotation != KVT_ROTATION_NONE || side->options.centring != KVT_CENTRING_NONE)
        return false;
    return (scheme == KVT_SCHEME_f32 && dtype == KVT_F32) || (scheme == KVT_SCHEME_f16 && dtype == KVT_F16) ||
           (scheme == KVT_SCHEME_bf16 && dtype == KVT_BF16);
}

static const unsigned char *row_at(const unsigned char *rows, size_t i, ptrdiff_t stride)
{
    return rows + (ptrdiff_t)i * stride;
}

/* The centre of a page whose n tokens are `rows`. */
static void write_own_centre(const oracle_side *side, unsigned char *page, size_t n, const unsigned char *rows, kvt_dtype dtype, ptrdiff_t row_stride)
{
    size_t bytes = oracle_element_bytes(dtype);
    uint32_t mu[KVT_MAX_DIM] = { 0 };
    for (uint32_t c = 0; c < side->dim; c++) {
        for (size_t i = 0; i < n; i++) {
            uint32_t x = oracle_widen(oracle_row_format(dtype), oracle_load(row_at(rows, i, row_stride) + c * bytes, bytes));
            if (is_finite(x))
                mu[c] = add(mu[c], without_tiny(x));
        }
        mu[c] = multiply(mu[c], oracle_round(oracle_f32, 1.0 / (double)n));
    }
    oracle_rotate(side, mu);
    quantize_centre(side, page + side->centre_offset, mu);
}

void oracle_write(const oracle_layout *layout, kvt_side which, unsigned char *const *pages, size_t first, size_t n, const unsigned char *rows,
                  kvt_dtype dtype, ptrdiff_t row_stride)
{
    const oracle_side *side = &layout->side[which];
    bool centred = side->options.centring != KVT_CENTRING_NONE;
    size_t bytes = oracle_element_bytes(dtype);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *row = row_at(rows, i, row_stride);
        unsigned char *page = pages[(first + i) / 64];
        uint32_t token = (uint32_t)((first + i) % 64);
        uint32_t x[KVT_MAX_DIM] = { 0 }, mu[KVT_MAX_DIM], codes[KVT_MAX_DIM] = { 0 }, scales[KVT_MAX_DIM / 16];
        for (uint32_t c = 0; c < side->dim; c++) {
            x[c] = oracle_load(row + c * bytes, bytes);
            if (dtype != KVT_F32 && !copies(side, dtype))
                x[c] = oracle_widen(oracle_row_format(dtype), x[c]);
        }
        if (side->options.centring == KVT_CENTRING_OWN && token == 0)
            write_own_centre(side, page, n - i < 64 ? n - i : 64, row, dtype, row_stride);
        else if (centred && token == 0)
            write_centre(side, which, pages, (first + i) / 64);
        if (copies(side, dtype)) {
            memcpy(codes, x, sizeof codes);
        } else {
            oracle_rotate(side, x);
            if (centred) {
                oracle_centre(side, page, mu);
                for (uint32_t c = 0; c < side->padded_dim; c++)
                    x[c] = subtract(without_tiny(x[c]), mu[c]);
            }
            oracle_encode(side, x, codes, scales);
        }
        for (uint32_t c = 0; c < side->padded_dim; c++)
            put_code(side, which, page, token, c, codes[c]);
        for (uint32_t b = 0; b < side->blocks; b++)
            oracle_store(page + scale_byte(side, token, b), side->scale_bytes, scales[b]);
        clear_unused(side, which, page, token);
    }
}

void oracle_read(const oracle_layout *layout, kvt_side which, unsigned char *const *pages, size_t first, size_t n, unsigned char *rows,
                 kvt_dtype dtype, ptrdiff_t row_stride)
{
    const oracle_side *side = &layout->side[which];
    size_t bytes = oracle_element_bytes(dtype);
    for (size_t i = 0; i < n; i++) {
        unsigned char *row = rows + (ptrdiff_t)i * row_stride;
        const unsigned char *page = pages[(first + i) / 64];
        uint32_t token = (uint32_t)((first + i) % 64);
        uint32_t x[KVT_MAX_DIM], mu[KVT_MAX_DIM];
        for (uint32_t c = 0; c < side->padded_dim; c++) {
            if (copies(side, dtype))
                x[c] = get_code(side, which, page, token, c);
            else
                oracle_decode(side, which, page, token, c, &x[c]);
        }
        if (side->options.centring != KVT_CENTRING_NONE) {
            oracle_centre(side, page, mu);
            for (uint32_t c = 0; c < side->padded_dim; c++)
                x[c] = add(without_tiny(x[c]), mu[c]);
        }
        oracle_unrotate(side, x);
        for (uint32_t c = 0; c < side->dim; c++) {
            if (dtype != KVT_F32 && !copies(side, dtype))
                x[c] = oracle_narrow(oracle_row_format(dtype), x[c]);
            oracle_store(row + c * bytes, bytes, x[c]);
        }
    }
}
