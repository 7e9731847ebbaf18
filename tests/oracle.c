#include "oracle.h"

#include <math.h>
#include <string.h>

const oracle_format oracle_f32 = { 8, 23 };
const oracle_format oracle_f16 = { 5, 10 };
const oracle_format oracle_bf16 = { 8, 7 };
const oracle_format oracle_e4m3 = { 4, 3 };

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

double oracle_value(oracle_format f, uint32_t bits)
{
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
    if (a == 0)
        return sign;
    if (a > power_of_2(1000))
        return sign | infinity_bits(f);
    /* Around a, the numbers of the format are the multiples of a step; counting the steps gives the bits. */
    int least = smallest_exponent(f);
    int power = exponent_of(a) > least ? exponent_of(a) : least;
    int64_t steps = nearest_integer(a * power_of_2((int)f.man_bits - power));
    int64_t code = ((int64_t)(power - least) << f.man_bits) + steps;
    /* e4m3 has numbers where others have infinities and NaN, up to 0x7e = 448, and saturates there. */
    int64_t largest = f.exp_bits == oracle_e4m3.exp_bits ? 0x7e : (int64_t)infinity_bits(f);
    return sign | (uint32_t)(code < largest ? code : largest);
}

bool oracle_is_nan(oracle_format f, uint32_t bits)
{
    return (bits & (sign_bit(f) - 1)) > infinity_bits(f);
}

static bool is_finite(uint32_t f32)
{
    return (f32 & 0x7fffffff) < 0x7f800000;
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

/* One binary32 operation on finite numbers. The double result is exact (products), or has more than twice the bits of a binary32 number, and then
 * rounding it again gives what rounding once would (quotients and sums whose result is not subnormal: all that is used). */
static uint32_t divide(uint32_t a, uint32_t b)
{
    return oracle_round(oracle_f32, oracle_value(oracle_f32, a) / oracle_value(oracle_f32, b));
}
static uint32_t multiply(uint32_t a, uint32_t b)
{
    return oracle_round(oracle_f32, oracle_value(oracle_f32, a) * oracle_value(oracle_f32, b));
}

/* ---- layout ---------------------------------------------------------------------------------------------------------------------- */

static const struct {
    kvt_scheme scheme;
    uint32_t bits, block, scale_bytes;
} schemes[] = {
    { KVT_SCHEME_f32, 32, 0, 0 },  { KVT_SCHEME_f16, 16, 0, 0 },  { KVT_SCHEME_bf16, 16, 0, 0 },
    { KVT_SCHEME_q8_0, 8, 32, 2 }, { KVT_SCHEME_q4_0, 4, 32, 2 }, { KVT_SCHEME_e4m3, 8, KVT_BLOCK_ROW, 4 },
};
static const size_t n_schemes = sizeof schemes / sizeof schemes[0];

bool oracle_knows(kvt_scheme scheme)
{
    for (size_t i = 0; i < n_schemes; i++)
        if (schemes[i].scheme == scheme)
            return true;
    return false;
}

static void side_init(oracle_side *side, kvt_scheme scheme, uint32_t dim, size_t offset)
{
    memset(side, 0, sizeof *side);
    side->scheme = scheme;
    side->dim = dim;
    side->padded_dim = 16 * ((dim + 15) / 16);
    for (size_t i = 0; i < n_schemes; i++) {
        if (schemes[i].scheme == scheme) {
            side->bits = schemes[i].bits;
            side->block = schemes[i].block == KVT_BLOCK_ROW ? side->padded_dim : schemes[i].block;
            side->scale_bytes = schemes[i].scale_bytes;
        }
    }
    side->blocks = side->block == 0 ? 0 : (side->padded_dim + side->block - 1) / side->block;
    side->row_bytes = side->padded_dim * side->bits / 8 + side->blocks * side->scale_bytes;
    side->tile_code_bytes = 16 * side->padded_dim * side->bits / 8;
    side->tile_scale_bytes = 16 * side->blocks * side->scale_bytes;
    side->codes_offset = offset;
    side->scales_offset = offset + 4 * side->tile_code_bytes;
}

void oracle_layout_init(oracle_layout *layout, kvt_scheme k_scheme, kvt_scheme v_scheme, uint32_t k_dim, uint32_t v_dim)
{
    memset(layout, 0, sizeof *layout);
    side_init(&layout->side[KVT_K], k_scheme, k_dim, 0);
    layout->token_bytes = layout->side[KVT_K].row_bytes;
    if (v_dim != 0) {
        side_init(&layout->side[KVT_V], v_scheme, v_dim, 64 * layout->token_bytes);
        layout->token_bytes += layout->side[KVT_V].row_bytes;
    }
    layout->page_bytes = 64 * layout->token_bytes;
}

/* ---- places ---------------------------------------------------------------------------------------------------------------------- */

typedef struct place {
    size_t byte;
    unsigned shift; /* of a nibble */
} place;

/* The table of docs/formats.md, section 2: t is the token in the tile, the byte is counted from the start of the tile's codes. */
static place place_of_code(kvt_side which, uint32_t bits, uint32_t t, uint32_t c)
{
    uint32_t line = 0, cell = 0, inside = 0;
    unsigned shift = 0;
    if (which == KVT_K) {
        cell = t;
        switch (bits) {
        case 32:
            line = c;
            break;
        case 16:
            line = c / 2;
            inside = 2 * (c % 2);
            break;
        case 8:
            line = c / 4;
            inside = c % 4;
            break;
        case 4:
            line = c / 8;
            inside = c % 4;
            shift = c % 8 < 4 ? 0 : 4;
            break;
        }
    } else {
        uint32_t strip = c / 16;
        cell = c % 16;
        switch (bits) {
        case 32:
            line = 16 * strip + t;
            break;
        case 16:
            line = 8 * strip + t / 2;
            inside = 2 * (t % 2);
            break;
        case 8:
            line = 4 * strip + t / 4;
            inside = t % 4;
            break;
        case 4:
            line = 2 * strip + t / 8;
            inside = t % 4;
            shift = t % 8 < 4 ? 0 : 4;
            break;
        }
    }
    return (place){ 64 * (size_t)line + 4 * cell + inside, shift };
}

static size_t code_byte(const oracle_side *side, kvt_side which, uint32_t token, uint32_t channel, unsigned *shift)
{
    place p = place_of_code(which, side->bits, token % 16, channel);
    *shift = p.shift;
    return side->codes_offset + token / 16 * side->tile_code_bytes + p.byte;
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

static const uint32_t one = 0x3f800000;

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
    uint32_t r = divide(one, d);
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
    uint32_t r = divide(one, d);
    for (uint32_t i = 0; i < n; i++) {
        double product = oracle_value(oracle_f32, multiply(x[i], r));
        double sum = oracle_value(oracle_f32, oracle_round(oracle_f32, product + 8.5));
        uint32_t code = (uint32_t)sum; /* 0.5 and more: truncation is floor */
        codes[i] = code < 15 ? code : 15;
    }
}

static void encode_e4m3(const uint32_t *x, uint32_t n, uint32_t *codes, uint32_t *scale)
{
    uint32_t amax = 0;
    for (uint32_t i = 0; i < n; i++)
        if (is_finite(x[i]) && (x[i] & 0x7fffffff) > amax)
            amax = x[i] & 0x7fffffff;
    uint32_t r = 0;
    *scale = 0;
    if (oracle_value(oracle_f32, amax) >= power_of_2(-100)) {
        *scale = divide(amax, oracle_round(oracle_f32, 448));
        r = divide(one, *scale);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t sign = x[i] >> 31 ? 0x80 : 0;
        if (oracle_is_nan(oracle_f32, x[i]))
            codes[i] = sign | 0x7f;
        else if (!is_finite(x[i]))
            codes[i] = sign | 0x7e;
        else
            codes[i] = sign | oracle_round(oracle_e4m3, oracle_value(oracle_f32, multiply(x[i] & 0x7fffffff, r)));
    }
}

void oracle_encode(const oracle_side *side, const uint32_t *x, uint32_t *codes, uint32_t *scales)
{
    for (uint32_t b = 0; b < side->blocks; b++) {
        uint32_t begin = b * side->block;
        uint32_t n = side->padded_dim - begin < side->block ? side->padded_dim - begin : side->block;
        switch (side->scheme) {
        case KVT_SCHEME_q8_0:
            encode_q8_0(x + begin, n, codes + begin, &scales[b]);
            break;
        case KVT_SCHEME_q4_0:
            encode_q4_0(x + begin, n, codes + begin, &scales[b]);
            break;
        default:
            encode_e4m3(x + begin, n, codes + begin, &scales[b]);
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

/* "Where the stored number format is that of the rows bits are copied." */
static bool copies(kvt_scheme scheme, kvt_dtype dtype)
{
    return (scheme == KVT_SCHEME_f32 && dtype == KVT_F32) || (scheme == KVT_SCHEME_f16 && dtype == KVT_F16) ||
           (scheme == KVT_SCHEME_bf16 && dtype == KVT_BF16);
}

static const unsigned char *row_at(const unsigned char *rows, size_t i, ptrdiff_t stride)
{
    return rows + (ptrdiff_t)i * stride;
}

void oracle_write(const oracle_layout *layout, kvt_side which, unsigned char *const *pages, size_t first, size_t n, const unsigned char *rows,
                  kvt_dtype dtype, ptrdiff_t row_stride)
{
    const oracle_side *side = &layout->side[which];
    size_t bytes = oracle_element_bytes(dtype);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *row = row_at(rows, i, row_stride);
        unsigned char *page = pages[(first + i) / 64];
        uint32_t token = (uint32_t)((first + i) % 64);
        uint32_t x[KVT_MAX_DIM] = { 0 }, codes[KVT_MAX_DIM] = { 0 }, scales[KVT_MAX_DIM / 32];
        for (uint32_t c = 0; c < side->dim; c++) {
            x[c] = oracle_load(row + c * bytes, bytes);
            if (dtype != KVT_F32 && !copies(side->scheme, dtype))
                x[c] = oracle_widen(oracle_row_format(dtype), x[c]);
        }
        if (copies(side->scheme, dtype))
            memcpy(codes, x, sizeof codes);
        else
            oracle_encode(side, x, codes, scales);
        for (uint32_t c = 0; c < side->padded_dim; c++) {
            unsigned shift;
            unsigned char *at = page + code_byte(side, which, token, c, &shift);
            if (side->bits == 4)
                *at = (unsigned char)((*at & ~(0xfu << shift)) | codes[c] << shift);
            else
                oracle_store(at, side->bits / 8, codes[c]);
        }
        for (uint32_t b = 0; b < side->blocks; b++)
            oracle_store(page + scale_byte(side, token, b), side->scale_bytes, scales[b]);
    }
}

/* code value times scale, in binary32; both are known to be exact as doubles, and so is their product */
static double scaled(double code, oracle_format format, uint32_t scale, uint32_t *f32)
{
    uint32_t wide = format.man_bits == oracle_f32.man_bits ? scale : oracle_widen(format, scale);
    if (!is_finite(wide)) {
        *f32 = 0x7fc00000;
        return (double)NAN;
    }
    double s = oracle_value(oracle_f32, wide);
    if (fabs(s) < 0x1p-117)
        s = 0;
    *f32 = oracle_round(oracle_f32, code * s);
    return code * s;
}

static uint32_t code_at(const oracle_side *side, kvt_side which, const unsigned char *page, uint32_t token, uint32_t channel)
{
    unsigned shift;
    const unsigned char *at = page + code_byte(side, which, token, channel, &shift);
    return side->bits == 4 ? (uint32_t)(*at >> shift & 0xf) : oracle_load(at, side->bits / 8);
}

double oracle_decode(const oracle_side *side, kvt_side which, const unsigned char *page, uint32_t token, uint32_t channel, uint32_t *f32)
{
    uint32_t code = code_at(side, which, page, token, channel);
    uint32_t scale = 0;
    if (side->blocks > 0)
        scale = oracle_load(page + scale_byte(side, token, channel / side->block), side->scale_bytes);
    switch (side->scheme) {
    case KVT_SCHEME_q8_0:
        return scaled(code < 128 ? (double)code : (double)code - 256, oracle_f16, scale, f32);
    case KVT_SCHEME_q4_0:
        return scaled((double)code - 8, oracle_f16, scale, f32);
    case KVT_SCHEME_e4m3:
        if ((code & 0x7f) == 0x7f) {
            *f32 = 0x7fc00000;
            return (double)NAN;
        }
        return scaled(oracle_value(oracle_e4m3, code), oracle_f32, scale, f32);
    default:
        *f32 = side->scheme == KVT_SCHEME_f32 ? code : oracle_widen(side->scheme == KVT_SCHEME_f16 ? oracle_f16 : oracle_bf16, code);
        if (is_finite(*f32))
            return oracle_value(oracle_f32, *f32);
        if (oracle_is_nan(oracle_f32, *f32))
            return (double)NAN;
        return *f32 >> 31 ? -(double)INFINITY : (double)INFINITY;
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
        for (uint32_t c = 0; c < side->dim; c++) {
            uint32_t bits;
            if (copies(side->scheme, dtype)) {
                bits = code_at(side, which, page, token, c);
            } else {
                oracle_decode(side, which, page, token, c, &bits);
                if (dtype != KVT_F32)
                    bits = oracle_narrow(oracle_row_format(dtype), bits);
            }
            oracle_store(row + c * bytes, bytes, bits);
        }
    }
}
