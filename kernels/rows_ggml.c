/* SPDX-License-Identifier: MIT */
/* Rows of ggml. docs/formats.md, section 8. */
#include "kernels/rows.h"

/* ---- q8_0: f16 d, 32 codes ---- */

KVT_ROWS block_f16 q8_0_scale(const float *x, kvt_rounding rounding)
{
    const uint32_t largest = largest_magnitude(x, ROWS_BLOCK);
    const float d = float_of(largest) / 127.0f;
    if (rounding == KVT_ROUNDING_CANONICAL)
        return canonical_scale(d);
    block_f16 s = ggml_scale(d, largest);
    if (rounding == KVT_ROUNDING_GGML_X86 && s.r != 0)
        s.r = 127.0f / float_of(largest);
    return s;
}

static void encode_q8_0(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const float *from = x + b * ROWS_BLOCK;
        uint8_t *to = row + b * 34;
        const block_f16 s = q8_0_scale(from, params->rounding);
        store_f16(to, s.d);
        if (s.is_nan)
            memset(to + 2, 0, ROWS_BLOCK);
        else if (params->rounding == KVT_ROUNDING_GGML_SCALAR)
            for (uint32_t i = 0; i < ROWS_BLOCK; i++)
                to[2 + i] = (uint8_t)half_away(from[i] * s.r);
        else
            for (uint32_t i = 0; i < ROWS_BLOCK; i++)
                to[2 + i] = (uint8_t)nearest_even(from[i] * s.r);
    }
}

static void decode_q8_0(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const uint8_t *from = row + b * 34;
        const float d = load_f16_scale(from);
        for (uint32_t i = 0; i < ROWS_BLOCK; i++)
            x[b * ROWS_BLOCK + i] = (float)(int8_t)from[2 + i] * d;
        if (is_nan(d))
            fill_nan(x + b * ROWS_BLOCK, ROWS_BLOCK);
    }
}

static void split_q8_0(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim)
{
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        memcpy(scales + 2 * b, row + b * 34, 2);
        memcpy(codes + b * ROWS_BLOCK, row + b * 34 + 2, ROWS_BLOCK);
    }
}

static void join_q8_0(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim)
{
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        memcpy(row + b * 34, scales + 2 * b, 2);
        memcpy(row + b * 34 + 2, codes + b * ROWS_BLOCK, ROWS_BLOCK);
    }
}

/* ---- fifth bits: bit j of a word is element j's ---- */

/* Eight at a time: a product brings bit 4 of byte i to bit 56 + i, or the bits of a byte to all bytes, and byte i keeps bit i. */
KVT_ROWS void store_fifth_bits(uint8_t *to, const uint8_t *code)
{
    for (uint32_t i = 0; i < ROWS_BLOCK; i += 8)
        to[i / 8] = (uint8_t)((load64(code + i) >> 4 & EACH_BYTE) * 0x0102040810204080 >> 56);
}
KVT_ROWS void add_fifth_bits(uint8_t *code, const uint8_t *from)
{
    for (uint32_t i = 0; i < ROWS_BLOCK; i += 8) {
        const uint64_t bits = from[i / 8] * EACH_BYTE & 0x8040201008040201;
        store64(code + i, load64(code + i) | ((bits + EACH_BYTE * 0x7f) >> 3 & EACH_BYTE * 16));
    }
}

/* ---- q4_0, q5_0: f16 d, fifth bits, 32 nibbles ---- */

KVT_ROWS void encode_biased(uint8_t *row, const float *x, uint32_t dim, kvt_rounding rounding, bool five)
{
    const uint32_t head = five ? 6 : 2;
    const int bias = five ? 16 : 8;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        uint8_t *to = row + b * (head + ROWS_BLOCK / 2), code[ROWS_BLOCK];
        const block_f16 s = biased_scale(x + b * ROWS_BLOCK, bias, rounding);
        biased_codes(code, x + b * ROWS_BLOCK, bias, s);
        store_f16(to, s.d);
        if (five)
            store_fifth_bits(to + 2, code);
        pack_halves(to + head, code, ROWS_BLOCK);
    }
}

KVT_ROWS void decode_biased(float *x, const uint8_t *row, uint32_t dim, bool five)
{
    const uint32_t head = five ? 6 : 2;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const uint8_t *from = row + b * (head + ROWS_BLOCK / 2);
        uint8_t code[ROWS_BLOCK];
        unpack_halves(code, from + head, ROWS_BLOCK);
        if (five)
            add_fifth_bits(code, from + 2);
        biased_values(x + b * ROWS_BLOCK, code, five ? 16 : 8, load_f16_scale(from));
    }
}

static void encode_q4_0(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    encode_biased(row, x, dim, params->rounding, false);
}
static void decode_q4_0(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    decode_biased(x, row, dim, false);
}
static void split_q4_0(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim)
{
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        memcpy(scales + 2 * b, row + b * 18, 2);
        unpack_halves(codes + b * ROWS_BLOCK, row + b * 18 + 2, ROWS_BLOCK);
    }
}
static void join_q4_0(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim)
{
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        memcpy(row + b * 18, scales + 2 * b, 2);
        pack_halves(row + b * 18 + 2, codes + b * ROWS_BLOCK, ROWS_BLOCK);
    }
}
static void encode_q5_0(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    encode_biased(row, x, dim, params->rounding, true);
}
static void decode_q5_0(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    decode_biased(x, row, dim, true);
}

/* ---- q4_1, q5_1: f16 d, f16 minimum, fifth bits, 32 nibbles ---- */

typedef struct block_min {
    block_f16 s;
    float min;
} block_min;

KVT_ROWS block_min min_scale(const float *x, float steps, kvt_rounding rounding)
{
    const row_span span = span_of(x, ROWS_BLOCK);
    const float range = span.max - span.min, nan = float_of(ROWS_NAN);
    const block_min unrepresentable = { .s = { .d = nan, .is_nan = true }, .min = nan };
    if (!span.is_finite)
        return unrepresentable;
    block_min m = { .min = span.min };
    if (rounding == KVT_ROUNDING_CANONICAL) {
        m.s = canonical_scale(range / steps);
        return m.s.is_nan || magnitude_of(span.min) >= ROWS_65520 ? unrepresentable : m;
    }
    if (float_bits(range) >= ROWS_INFINITY)
        return unrepresentable;
    m.s = ggml_scale(range / steps, float_bits(range));
    /* Of zeros of both signs ggml keeps the first. */
    if (magnitude_of(span.min) == 0)
        for (uint32_t i = ROWS_BLOCK; i-- > 0;)
            m.min = magnitude_of(x[i]) == 0 ? x[i] : m.min;
    return m;
}

KVT_ROWS void encode_min(uint8_t *row, const float *x, uint32_t dim, kvt_rounding rounding, bool five)
{
    const uint32_t head = five ? 8 : 4;
    const float steps = five ? 31 : 15;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const float *from = x + b * ROWS_BLOCK;
        uint8_t *to = row + b * (head + ROWS_BLOCK / 2), code[ROWS_BLOCK];
        const block_min m = min_scale(from, steps, rounding);
        for (uint32_t i = 0; i < ROWS_BLOCK; i++) {
            const float y = limited((from[i] - m.min) * m.s.r + 0.5f, 0, steps);
            code[i] = (uint8_t)(m.s.is_nan ? 0 : (int32_t)y);
        }
        store_f16(to, m.s.d);
        store_f16(to + 2, m.min);
        if (five)
            store_fifth_bits(to + 4, code);
        pack_halves(to + head, code, ROWS_BLOCK);
    }
}

KVT_ROWS void decode_min(float *x, const uint8_t *row, uint32_t dim, bool five)
{
    const uint32_t head = five ? 8 : 4;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const uint8_t *from = row + b * (head + ROWS_BLOCK / 2);
        uint8_t code[ROWS_BLOCK];
        const float d = load_f16_scale(from), min = load_f16_scale(from + 2);
        unpack_halves(code, from + head, ROWS_BLOCK);
        if (five)
            add_fifth_bits(code, from + 4);
        for (uint32_t i = 0; i < ROWS_BLOCK; i++)
            x[b * ROWS_BLOCK + i] = (float)code[i] * d + min;
        if (is_nan(d) || is_nan(min))
            fill_nan(x + b * ROWS_BLOCK, ROWS_BLOCK);
    }
}

static void encode_q4_1(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    encode_min(row, x, dim, params->rounding, false);
}
static void decode_q4_1(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    decode_min(x, row, dim, false);
}
static void encode_q5_1(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    encode_min(row, x, dim, params->rounding, true);
}
static void decode_q5_1(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    decode_min(x, row, dim, true);
}

/* ---- iq4_nl: f16 d, 32 nibbles ---- */

static const int8_t iq4_nl_level[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

KVT_ROWS void iq4_nl_codes(uint8_t *code, const float *x, block_f16 s)
{
    for (uint32_t i = 0; i < ROWS_BLOCK; i++) {
        const float y = (s.is_nan ? 0 : x[i]) * s.r;
        uint32_t q = 0;
        for (int k = 0; k < 15; k++)
            q += y >= (float)(iq4_nl_level[k] + iq4_nl_level[k + 1]) * 0.5f;
        code[i] = (uint8_t)q;
    }
}

static void encode_iq4_nl(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const float *from = x + b * ROWS_BLOCK;
        uint8_t code[ROWS_BLOCK];
        int32_t v[ROWS_BLOCK];
        const block_f16 first = canonical_scale(largest_signed(from, ROWS_BLOCK) / -127.0f);
        iq4_nl_codes(code, from, first);
        for (uint32_t i = 0; i < ROWS_BLOCK; i++)
            v[i] = iq4_nl_level[code[i]];
        const block_f16 s = refined_scale(from, v, first);
        iq4_nl_codes(code, from, s);
        store_f16(row + b * 18, s.d);
        pack_halves(row + b * 18 + 2, code, ROWS_BLOCK);
    }
}

static void decode_iq4_nl(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        uint8_t code[ROWS_BLOCK];
        const float d = load_f16_scale(row + b * 18);
        unpack_halves(code, row + b * 18 + 2, ROWS_BLOCK);
        for (uint32_t i = 0; i < ROWS_BLOCK; i++)
            x[b * ROWS_BLOCK + i] = (float)iq4_nl_level[code[i]] * d;
        if (is_nan(d))
            fill_nan(x + b * ROWS_BLOCK, ROWS_BLOCK);
    }
}

/* ---- mxfp4: E8M0, 32 nibbles ---- */

static void encode_ggml_mxfp4(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        uint8_t *to = row + b * 17, code[ROWS_BLOCK];
        const uint32_t largest = largest_magnitude(x + b * ROWS_BLOCK, ROWS_BLOCK);
        const bool blank = largest < ROWS_2_POW_M100 || largest >= ROWS_INFINITY;
        to[0] = (uint8_t)(!blank ? (largest >> 23) - 2 : largest < ROWS_2_POW_M100 ? 0 : 0xff);
        e2m1_codes(code, x + b * ROWS_BLOCK, ROWS_BLOCK, blank ? 0 : e8m0_scale(to[0]), E2M1_GGML);
        pack_halves(to + 1, code, ROWS_BLOCK);
    }
}

static void decode_ggml_mxfp4(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        uint8_t code[ROWS_BLOCK];
        unpack_halves(code, row + b * 17 + 1, ROWS_BLOCK);
        e2m1_values(x + b * ROWS_BLOCK, code, ROWS_BLOCK, e8m0_scale(row[b * 17]), 1, E2M1_GGML);
    }
}

/* ---- nvfp4: 4 scales, then 4 times 16 nibbles ---- */

enum { NVFP4_PART = 16, NVFP4_PARTS = 4 };

/* Halves round up, and what rounds to 256 or more is 448. */
KVT_ROWS uint8_t ggml_e4m3_of(float positive)
{
    const uint32_t bits = float_bits(positive);
    if (bits < 0x3c800000) { /* 2^-6: steps of 2^-9 */
        const uint32_t steps = (uint32_t)(positive * 512.0f + 0.5f);
        return (uint8_t)(steps < 7 ? steps : 7);
    }
    const uint32_t code = ((bits + 0x80000) >> 20) - ((127 - 7) << 3);
    return (uint8_t)(bits >= 0x43800000 || code >= 0x78 ? 0x7e : code);
}

static void encode_ggml_nvfp4(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    KVT_FOR_BLOCKS(dim, NVFP4_PART * NVFP4_PARTS)
    {
        for (uint32_t part = 0; part < NVFP4_PARTS; part++) {
            const float *from = x + (b * NVFP4_PARTS + part) * NVFP4_PART;
            uint8_t *to = row + b * 36, code[NVFP4_PART];
            const uint32_t largest = largest_magnitude(from, NVFP4_PART);
            const bool is_wrong = largest >= ROWS_INFINITY;
            const float scale = float_of(is_wrong ? 0 : largest) / 6.0f;
            const uint8_t stored = params->rounding == KVT_ROUNDING_CANONICAL ? e4m3_of(scale) : ggml_e4m3_of(scale);
            to[part] = is_wrong ? 0x7f : stored;
            e2m1_codes(code, from, NVFP4_PART, is_wrong ? 0 : e4m3_magnitude(stored), E2M1_GGML);
            pack_halves(to + NVFP4_PARTS + part * NVFP4_PART / 2, code, NVFP4_PART);
        }
    }
}

static void decode_ggml_nvfp4(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    KVT_FOR_BLOCKS(dim, NVFP4_PART * NVFP4_PARTS)
    {
        for (uint32_t part = 0; part < NVFP4_PARTS; part++) {
            const uint8_t *from = row + b * 36;
            uint8_t code[NVFP4_PART];
            unpack_halves(code, from + NVFP4_PARTS + part * NVFP4_PART / 2, NVFP4_PART);
            const float scale = (from[part] & 0x7f) == 0x7f ? float_of(ROWS_NAN) : e4m3_magnitude(from[part]);
            e2m1_values(x + (b * NVFP4_PARTS + part) * NVFP4_PART, code, NVFP4_PART, scale, 1, E2M1_GGML);
        }
    }
}

extern const kvt_row_codec KVT_EXPORT(row_codecs_ggml)[];
const kvt_row_codec KVT_EXPORT(row_codecs_ggml)[] = {
    { .format = KVT_ROW_ggml_q8_0, .encode = encode_q8_0, .decode = decode_q8_0, .split = split_q8_0, .join = join_q8_0 },
    { .format = KVT_ROW_ggml_q4_0, .encode = encode_q4_0, .decode = decode_q4_0, .split = split_q4_0, .join = join_q4_0 },
    { .format = KVT_ROW_ggml_q4_1, .encode = encode_q4_1, .decode = decode_q4_1 },
    { .format = KVT_ROW_ggml_q5_0, .encode = encode_q5_0, .decode = decode_q5_0 },
    { .format = KVT_ROW_ggml_q5_1, .encode = encode_q5_1, .decode = decode_q5_1 },
    { .format = KVT_ROW_ggml_iq4_nl, .encode = encode_iq4_nl, .decode = decode_iq4_nl },
    { .format = KVT_ROW_ggml_mxfp4, .encode = encode_ggml_mxfp4, .decode = decode_ggml_mxfp4 },
    { .format = KVT_ROW_ggml_nvfp4, .encode = encode_ggml_nvfp4, .decode = decode_ggml_nvfp4 },
    { .format = KVT_ROW_NONE },
};
