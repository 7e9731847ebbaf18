/* Attention's loops over codes that are integers, once for each width (docs/formats.md, section 9): logits from keys, weighted sums from values.
 *
 * A line is 16 tokens (K) or 16 channels (V) side by side, so sums run down the lines, and nothing is ever added across a register. A line is loaded
 * once for as many rows of queries as there are registers for their sums.
 *
 * Codes or levels of a byte are multiplied by integers of 16 bits, queries or weights, whose sums are exact whatever the tier makes of them: on tiers
 * with dots of bytes two *terms*, the upper byte (rounded) and the lower one; where queries need only a byte, one. */
#include "kernels/levels.h"
#include "kernels/planes.h"

enum {
    CHUNK_GROUPS = 4, /* of 64 channels or tokens, whose integers lie together */
    CHUNK_BYTES = 128,
    MOST_DOT_GROUPS = 8, /* whose dot fits 32 bits: 128 channels * 127 * 2^15 */
    V_TERMS = KVT_DOT_BITS == 8 ? 2 : 1,
    VALUE_ROWS = KVT_DOT_ROWS / V_TERMS,
    BLOCKS_AT_A_TIME = 4,             /* whose long chains of operations go side by side */
    PAGE_BYTES = KVT_PAGE_TOKENS * 2, /* of words */
    LINES_BYTES = 256                 /* of a byte per code: a group of a tile */
};

/* A query of a byte costs 0.1 dB of codes of 5 bits (docs/design.md). */
KVT_LANES bool takes_bytes(uint32_t bits)
{
    return bits <= 5;
}
KVT_LANES uint32_t query_terms(uint32_t bits)
{
    return KVT_DOT_BITS == 8 && !takes_bytes(bits) ? 2 : 1;
}
/* Groups of a block whose dot fits 32 bits. */
KVT_LANES uint32_t dot_groups(const kvt_tile_spec *spec)
{
    return spec->block_groups < MOST_DOT_GROUPS ? spec->block_groups : MOST_DOT_GROUPS;
}
/* What is added to codes, to make them bytes that dots can take. */
KVT_LANES uint32_t bias_of(kvt_loop_id loop)
{
    return loop == KVT_LOOP_4 ? 8 : KVT_DOT_BIAS;
}
KVT_LANES uint32_t bits_of(kvt_loop_id loop)
{
    return loop == KVT_LOOP_8                               ? 8
           : loop == KVT_LOOP_table_6                       ? 6
           : loop == KVT_LOOP_table_5                       ? 5
           : loop == KVT_LOOP_4 || loop == KVT_LOOP_table_4 ? 4
           : loop == KVT_LOOP_table_3                       ? 3
                                                            : 2;
}

/* The four lines of a byte per code of a group of a K or V tile, ready for dots. */
KVT_LANES void load_group_lines(kvt_loop_id loop, const levels *table, const uint8_t *codes, uint32_t groups, uint32_t g, u8x64 line[4])
{
    if (loop == KVT_LOOP_8) {
        for (uint32_t i = 0; i < 4; i++) {
            line[i] = u8x64_load(codes + (size_t)g * LINES_BYTES + (size_t)i * 64);
            if (KVT_DOT_BIAS)
                line[i] = u8x64_from_i32(i32x16_xor(i32x16_from_u8(line[i]), i32x16_set1(0x80808080)));
        }
        return;
    }
    planes_load(bits_of(loop), codes, groups, g, line);
    for (uint32_t i = 0; loop != KVT_LOOP_4 && i < 4; i++)
        line[i] = levels_of(bits_of(loop), table, line[i]);
}

/* Where a product of matrices adds to two sums at once (KVT_DOT_PAIRS of arch/VEC.md), sums 2n and 2n + 1 lie in turns: lanes of the first half of a
 * line in sum[2n], those of the second half in sum[2n + 1]. As many as do not fit the registers are made for one half of the lanes after the other.
 */
#if defined(KVT_DOT_PAIRS)
KVT_LANES bool is_paired(uint32_t sums)
{
    return sums > 1;
}
KVT_LANES uint32_t halves_at_once(uint32_t sums)
{
    return sums > KVT_DOT_PAIRS ? 1 : 2;
}
KVT_LANES void store_lanes(uint32_t sums, uint32_t half, float *to, f32x16 x)
{
    if (halves_at_once(sums) == 1)
        f32x16_store_half(to, x, half);
    else
        f32x16_store(to, x);
}
/* Rows of one term share a chunk in twos. */
KVT_LANES size_t row_at(uint32_t row, uint32_t terms)
{
    return terms == 1 ? (row & ~UINT32_C(1)) * (size_t)CHUNK_BYTES + row % 2 * KVT_DOT_LOWER : row * (size_t)CHUNK_BYTES;
}
#else
KVT_LANES size_t row_at(uint32_t row, uint32_t terms)
{
    (void)terms;
    return row * (size_t)CHUNK_BYTES;
}
KVT_LANES uint32_t halves_at_once(uint32_t sums)
{
    (void)sums;
    return 2;
}
KVT_LANES void store_lanes(uint32_t sums, uint32_t half, float *to, f32x16 x)
{
    (void)sums, (void)half;
    f32x16_store(to, x);
}
#endif

/* `rows` times `terms` sums get the dots with a group's lines. Sum v is row v / terms, term v % terms; rows' quads are a chunk apart. */
#define ADD_LINE(j)                                                                                                                                  \
    {                                                                                                                                                \
        const dot_line codes_of_line = dot_line_of(line[j]);                                                                                         \
        KVT_FOR_ROWS                                                                                                                                 \
        for (uint32_t v = 0; v < rows * terms; v++)                                                                                                  \
            sum[v] = dot_add(sum[v], codes_of_line, dot_quads_at(quads + v / terms * CHUNK_BYTES + v % terms * KVT_DOT_LOWER), j);                   \
    }
KVT_LANES void add_group(uint32_t rows, uint32_t terms, uint32_t half, dot_sum *sum, const u8x64 line[4], const uint8_t *quads)
{
#if defined(KVT_DOT_PAIRS)
    if (is_paired(rows * terms)) {
        for (uint32_t h = half; h < half + halves_at_once(rows * terms); h++) {
            const u8x64 cells[2] = { dot_cells(line[0], line[1], h), dot_cells(line[2], line[3], h) };
            KVT_FOR_ROWS
            for (uint32_t v = 0; v < rows * terms; v += 2) {
                sum[v + h] = dot_add_two(sum[v + h], cells, quads + v / terms * CHUNK_BYTES);
            }
        }
        return;
    }
#endif
    (void)half;
    ADD_LINE(0) ADD_LINE(1) ADD_LINE(2) ADD_LINE(3)
}

/* The bias counts once: in the last term, which is added as it is. Without one all start with zero. */
KVT_LANES void start_sums(bool has_bias, uint32_t rows, uint32_t terms, dot_sum *sum, const uint32_t *start, size_t stride)
{
#if defined(KVT_DOT_PAIRS)
    if (is_paired(rows * terms)) {
        KVT_FOR_ROWS
        for (uint32_t v = 0; v < rows * terms; v += 2)
            sum[v] = sum[v + 1] = dot_start_two(has_bias && terms == 1 ? start[v * stride] : 0, has_bias ? start[(v + 1) / terms * stride] : 0);
        return;
    }
#endif
    KVT_FOR_ROWS
    for (uint32_t v = 0; v < rows * terms; v++)
        sum[v] = dot_start(has_bias && v % terms == terms - 1 ? start[v / terms * stride] : 0);
}

KVT_LANES i32x16 lanes_of_sum(uint32_t sums, uint32_t v, const dot_sum *sum)
{
#if defined(KVT_DOT_PAIRS)
    if (is_paired(sums))
        return dot_finish_two(sum + v / 2 * 2, v % 2);
#endif
    (void)sums;
    return dot_finish(sum[v]);
}
KVT_LANES f32x16 finish_sum(uint32_t rows, uint32_t row, uint32_t terms, const dot_sum *sum)
{
    const i32x16 last = lanes_of_sum(rows * terms, row * terms + terms - 1, sum);
    return f32x16_from_i32(terms == 1 ? last : i32x16_add(i32x16_shl(lanes_of_sum(rows * terms, row * terms, sum), 8), last));
}

/* As much of what is wanted next as group i of a page's tiles has lines. */
KVT_LANES void prefetch_group(uint32_t bits, const uint8_t *ahead, uint32_t i)
{
    KVT_FOR_ROWS
    for (uint32_t j = 0; j < (bits + 1) / 2; j++)
        prefetch_far(ahead, ((size_t)i * ((bits + 1) / 2) + j) * 64);
}
/* The scales of a page lie behind its codes. */
static void prefetch_scales(const uint8_t *ahead, const kvt_tile_spec *spec)
{
    const uint32_t groups = spec->dim / 16;
    const size_t bytes = PAGE_TILES * tile_scale_bytes(groups, spec);
    for (size_t i = 0; i < bytes; i += 64)
        prefetch_far(ahead, PAGE_TILES * tile_code_bytes(spec->scheme->bits, groups) + i);
}

/* ---- K ---- */

/* To multiples of the row's largest number / 32639, the largest number both of whose terms are bytes; or of 1/127 of it where a term is enough. */
static void prepare(const kvt_queries *q, const kvt_tile_spec *spec)
{
    const uint32_t groups = spec->dim / 16, per_dot = dot_groups(spec), blocks = blocks_in(groups, per_dot);
    const bool is_byte = takes_bytes(spec->scheme->bits);
    const uint32_t terms = query_terms(spec->scheme->bits);
    for (uint32_t row = 0; row < q->n; row++) {
        const float *x = q->x + (size_t)row * spec->dim;
        i32x16 m[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
        for (uint32_t g = 0; g < groups; g++)
            m[0] = i32x16_max_u(m[0], magnitude_bits(f32x16_load(x + 16 * g)));
        uint32_t largest[4];
        quad_max_u(m, largest);
        const bool is_usable = largest[0] > 0 && largest[0] < 0x7f800000;
        float amax;
        memcpy(&amax, largest, 4);
        const float steps = is_byte ? 127 : 32639, r = is_usable ? steps / amax : 0;
        q->factor[row] = is_usable ? amax / steps * (is_byte ? 0x1p-8f : 1) : amax; /* otherwise 0, an infinity or NaN */
        uint32_t *start = q->start + (size_t)row * groups;
        for (uint32_t b = 0; b < blocks; b++)
            start[b] = 0;
        for (uint32_t begin = 0; begin < groups; begin += CHUNK_GROUPS) {
            i32x16 number[CHUNK_GROUPS];
            for (uint32_t i = 0; i < CHUNK_GROUPS; i++) {
                number[i] = i32x16_set1(0);
                if (begin + i < groups && is_usable)
                    number[i] = i32x16_from_f32_rne(f32x16_mul(f32x16_load(x + 16 * (begin + i)), f32x16_set1(r)));
            }
            uint32_t sum[CHUNK_GROUPS];
            quad_sum(number, sum);
            for (uint32_t i = 0; is_byte && i < CHUNK_GROUPS; i++)
                number[i] = i32x16_shl(number[i], 8);
            /* a term alone is used without the 2^8 that it counts for */
            const uint32_t bias = bias_of(spec->scheme->loop) * (is_byte && KVT_DOT_BITS == 16 ? 256u : 1u);
            for (uint32_t i = 0; i < CHUNK_GROUPS && begin + i < groups; i++)
                start[(begin + i) / per_dot] -= bias * sum[i];
            u8x64 half[2];
            words_in_order(number, half);
            uint8_t *to = q->quads + (size_t)(begin / CHUNK_GROUPS) * q->n * CHUNK_BYTES + row_at(row, terms);
            if (terms == 2)
                dot_store(to, half[0], half[1], 2);
            else
                dot_store(to, half[0], half[1], 1);
        }
    }
}

/* Tiles, and the rows that meet them: `row` is the first. Scales are 16 floats for each block. */
typedef struct score_work {
    const kvt_queries *q;
    const kvt_table *table;
    const uint8_t *codes;
    const float *scale;
    size_t code_bytes, scales; /* of a tile */
    uint32_t groups, per_dot, per_block;
    uint32_t row, tiles;
    float *logits;
    kvt_ahead ahead;
} score_work;

KVT_LANES void score_tile(kvt_loop_id loop, uint32_t rows, uint32_t half, const score_work *w, const levels *all, const uint8_t *codes,
                          const float *scale, float *logits, kvt_ahead ahead)
{
    const uint32_t bits = bits_of(loop), terms = query_terms(bits), groups = w->groups, per_dot = w->per_dot, n = w->q->n;
    const uint8_t *quads = w->q->quads + row_at(w->row, terms);
    const uint32_t scale_shift = (uint32_t)__builtin_ctz(w->per_block);
    f32x16 total[KVT_DOT_ROWS];
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        total[r] = f32x16_set1(0);
    for (uint32_t begin = 0, b = 0; begin < groups; begin += per_dot, b++) {
        const uint32_t end = groups - begin < per_dot ? groups : begin + per_dot;
        dot_sum sum[KVT_DOT_ROWS];
        start_sums(bias_of(loop) != 0, rows, terms, sum, w->q->start + (size_t)w->row * groups + b, groups);
        for (uint32_t g = begin; g < end; g++) {
            u8x64 line[4];
            if (w->row == 0 && half == 0)
                prefetch_group(bits, ahead, g);
            load_group_lines(loop, all, codes, groups, g, line);
            add_group(rows, terms, half, sum, line, quads + (size_t)(g / CHUNK_GROUPS) * n * CHUNK_BYTES + (size_t)(g % CHUNK_GROUPS) * KVT_DOT_STEP);
        }
        const f32x16 s = f32x16_load(scale + (size_t)(begin >> scale_shift) * KVT_TILE_TOKENS);
        KVT_FOR_ROWS
        for (uint32_t r = 0; r < rows; r++)
            total[r] = f32x16_fma(finish_sum(rows, r, terms, sum), s, total[r]);
    }
    /* A byte that was not shifted up by 8 */
    const float unit = takes_bytes(bits) && KVT_DOT_BITS == 8 ? 0x1p8f : 1;
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        store_lanes(rows * terms, half, logits + (size_t)(w->row + r) * KVT_SPAN_TOKENS,
                    f32x16_mul(total[r], f32x16_set1(w->q->factor[w->row + r] * unit)));
}

KVT_LANES void score_rows(kvt_loop_id loop, uint32_t rows, const score_work *w)
{
    const uint32_t bits = bits_of(loop);
    const levels all = loop == KVT_LOOP_8 || loop == KVT_LOOP_4 ? (levels){ 0 } : load_levels(bits, w->table, KVT_DOT_BIAS);
    KVT_ROLLED
    for (uint32_t i = 0; i < w->tiles; i++)
        KVT_FOR_ROWS
    for (uint32_t half = 0; half < 2; half += halves_at_once(rows * query_terms(bits)))
        score_tile(loop, rows, half, w, &all, w->codes + i * w->code_bytes, w->scale + i * w->scales, w->logits + (size_t)i * KVT_TILE_TOKENS,
                   (const uint8_t *)((uintptr_t)w->ahead + i * w->code_bytes));
}

/* ---- V ---- */

/* Scales of n blocks of a page from b on, to [block][token of the span]; zeros where tokens are not first .. end-1 of the page. */
KVT_LANES void load_page_scales(kvt_load_scales_fn *load, float *scale, const uint8_t *scales, uint32_t groups, const kvt_tile_spec *spec, uint32_t b,
                                uint32_t n, int64_t first, int64_t end)
{
    const size_t tile_bytes = tile_scale_bytes(groups, spec);
    for (uint32_t i = 0; i < PAGE_TILES; i++)
        load(scales + i * tile_bytes, b, n, spec, scale + 16 * i, KVT_SPAN_TOKENS);
    if (first <= 0 && end >= KVT_PAGE_TOKENS)
        return;
    const uint32_t from = first > 0 ? (uint32_t)first : 0, to = end < KVT_PAGE_TOKENS ? (uint32_t)end : KVT_PAGE_TOKENS;
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < PAGE_TILES; i++) {
            float *at = scale + k * KVT_SPAN_TOKENS + 16 * i;
            f32x16_store(at, lanes_between(f32x16_load(at), 16 * i, from, to, f32x16_set1(0)));
        }
}

/* Scales of a few blocks as halfwords, multiples of the largest / 32767, and that divided by what weights are multiplied with. */
typedef struct span_scales {
    uint8_t words[BLOCKS_AT_A_TIME][KVT_SPAN_PAGES][PAGE_BYTES];
    float unit[BLOCKS_AT_A_TIME];
} span_scales;

KVT_ONCE void load_span_scales(kvt_load_scales_fn *load, span_scales *to, const kvt_weighted *w, const kvt_tile_spec *spec, uint32_t groups,
                               uint32_t b, uint32_t n)
{
    float scale[BLOCKS_AT_A_TIME * KVT_SPAN_TOKENS];
    i32x16 m[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
    for (uint32_t p = 0; p < w->pages; p++) {
        const int64_t begin = (int64_t)p * KVT_PAGE_TOKENS;
        load_page_scales(load, scale + begin, w->scales[p], groups, spec, b, n, w->first - begin, w->end - begin);
        for (uint32_t k = 0; k < n; k++)
            for (uint32_t i = 0; i < PAGE_TILES; i++)
                m[k] = i32x16_max_u(m[k], magnitude_bits(f32x16_load(scale + k * KVT_SPAN_TOKENS + begin + 16 * i)));
    }
    uint32_t largest[4];
    quad_max_u(m, largest);
    for (uint32_t k = 0; k < n; k++) {
        const bool is_usable = largest[k] > 0 && largest[k] < 0x7f800000;
        float smax;
        memcpy(&smax, &largest[k], 4);
        to->unit[k] = smax * (0x1p15f / (KVT_WEIGHT_UNIT * 32767.0f));
        const f32x16 r = f32x16_set1(is_usable ? 32767 / smax : 0);
        for (uint32_t p = 0; p < w->pages; p++) {
            i32x16 number[PAGE_TILES];
            for (uint32_t i = 0; i < PAGE_TILES; i++)
                number[i] = i32x16_from_f32_rne(f32x16_mul(f32x16_load(scale + k * KVT_SPAN_TOKENS + p * KVT_PAGE_TOKENS + 16 * i), r));
            u8x64 half[2];
            words_in_order(number, half);
            if (!is_usable) /* scales that are not finite: the unit tells */
                half[0] = half[1] = u8x64_from_i32(i32x16_set1(0));
            u8x64_store(to->words[k][p], half[0]);
            u8x64_store(to->words[k][p] + 64, half[1]);
        }
    }
}

/* Weights of some rows times scales of a block, as dots want them. */
typedef struct block_weights {
    uint8_t quads[KVT_SPAN_PAGES][VALUE_ROWS * CHUNK_BYTES];
    uint32_t start[VALUE_ROWS < 4 ? 4 : VALUE_ROWS]; /* what makes up for the codes' bias */
    float unit[VALUE_ROWS];
} block_weights;

KVT_LANES void make_block_weights(uint32_t bias, uint32_t rows, block_weights *to, const kvt_weighted *w, const span_scales *scales, uint32_t k,
                                  uint32_t row)
{
    const u8x64 ones = u8x64_from_i32(i32x16_set1(0x00010001));
    KVT_ROLLED
    for (uint32_t begin = 0; begin < rows; begin += 4) {
        i32x16 sum[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
        KVT_ROLLED
        for (uint32_t p = 0; p < w->pages; p++) {
            const u8x64 s[2] = { u8x64_load(scales->words[k][p]), u8x64_load(scales->words[k][p] + 64) };
            KVT_FOR_ROWS
            for (uint32_t i = 0; i < (rows < 4 ? rows : 4); i++) {
                const uint8_t *words = w->words + (size_t)(row + begin + i) * KVT_SPAN_TOKENS * 2 + p * PAGE_BYTES;
                const u8x64 x = i16x32_mulhrs(u8x64_load(words), s[0]), y = i16x32_mulhrs(u8x64_load(words + 64), s[1]);
                dot_store(to->quads[p] + row_at(begin + i, V_TERMS), x, y, V_TERMS);
                if (KVT_DOT_BIAS != 0 || bias != 0)
                    sum[i] = i32x16_dot_s16(i32x16_dot_s16(sum[i], x, ones), y, ones);
            }
        }
        uint32_t total[4];
        quad_sum(sum, total);
        for (uint32_t i = 0; i < (rows < 4 ? rows : 4); i++) {
            to->start[begin + i] = 0u - bias * total[i];
            to->unit[begin + i] = w->factors[row + begin + i] * scales->unit[k];
        }
    }
}

/* A group of the values of up to a span of tokens, and the rows whose sums they go to: `row` is the first. */
typedef struct value_work {
    const kvt_weighted *w;
    const kvt_table *table;
    const block_weights *weights;
    uint32_t groups, g, row;
    const uint8_t *turned; /* lines of all pages, ready for dots: of values that are stored as keys */
} value_work;

KVT_LANES void add_values(uint32_t rows, uint32_t half, const dot_sum *sum, const value_work *v)
{
    float *to = v->w->sums + v->row * v->w->sum_stride + 16 * v->g;
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++, to += v->w->sum_stride)
        store_lanes(rows * V_TERMS, half, to, f32x16_fma(finish_sum(rows, r, V_TERMS, sum), f32x16_set1(v->weights->unit[r]), f32x16_load(to)));
}

KVT_LANES void value_half(kvt_loop_id loop, uint32_t rows, uint32_t half, const value_work *v)
{
    const uint32_t bits = bits_of(loop), groups = v->groups, g = v->g;
    const kvt_weighted *w = v->w;
    const size_t tile_bytes = tile_code_bytes(bits, groups);
    const levels all = loop == KVT_LOOP_8 || loop == KVT_LOOP_4 ? (levels){ 0 } : load_levels(bits, v->table, KVT_DOT_BIAS);
    dot_sum sum[KVT_DOT_ROWS];
    start_sums(bias_of(loop) != 0, rows, V_TERMS, sum, v->weights->start, 1);
    KVT_ROLLED
    for (uint32_t p = 0; p < w->pages; p++) {
        const uint8_t *codes = w->codes[p];
        if (v->row == 0 && half == 0)
            for (uint32_t i = 0; i < PAGE_TILES; i++)
                prefetch_group(bits, w->ahead[p], g * PAGE_TILES + i);
        KVT_ROLLED
        for (uint32_t i = 0; i < PAGE_TILES; i++) {
            u8x64 line[4];
            if (v->row == 0 && half == 0) { /* the lines of the next group are not near, and L1 does not foresee them */
                KVT_FOR_ROWS
                for (uint32_t j = 0; j < (bits + 1) / 2; j++)
                    prefetch_near(codes + i * tile_bytes, ((size_t)(g + 1) * ((bits + 1) / 2) + j) * 64);
            }
            load_group_lines(loop, &all, codes + i * tile_bytes, groups, g, line);
            add_group(rows, V_TERMS, half, sum, line, v->weights->quads[p] + KVT_DOT_STEP * i);
        }
    }
    add_values(rows, half, sum, v);
}
KVT_LANES void value_rows(kvt_loop_id loop, uint32_t rows, const value_work *v)
{
    KVT_FOR_ROWS
    for (uint32_t half = 0; half < 2; half += halves_at_once(rows * V_TERMS))
        value_half(loop, rows, half, v);
}

/* ---- keys that are values too: the latent of MLA ---- */

enum { TURNED_ROWS = 32 }; /* for which a group is turned once, and whose weights stay in L1 */

KVT_LANES void turned_half(uint32_t rows, uint32_t half, const value_work *v)
{
    dot_sum sum[KVT_DOT_ROWS];
    start_sums(true, rows, V_TERMS, sum, v->weights->start, 1); /* zeros where there is no bias */
    KVT_ROLLED
    for (uint32_t p = 0; p < v->w->pages; p++)
        KVT_ROLLED
    for (uint32_t i = 0; i < PAGE_TILES; i++) {
        u8x64 line[4];
        for (uint32_t j = 0; j < 4; j++)
            line[j] = u8x64_load(v->turned + ((size_t)p * PAGE_TILES + i) * LINES_BYTES + (size_t)j * 64);
        add_group(rows, V_TERMS, half, sum, line, v->weights->quads[p] + KVT_DOT_STEP * i);
    }
    add_values(rows, half, sum, v);
}
KVT_LANES void turned_rows(uint32_t rows, const value_work *v)
{
    KVT_FOR_ROWS
    for (uint32_t half = 0; half < 2; half += halves_at_once(rows * V_TERMS))
        turned_half(rows, half, v);
}

/* A group of the K tiles of all pages as the V tiles of the same numbers have it, ready for dots. */
KVT_LANES void turn_group(kvt_loop_id loop, const kvt_weighted *w, const kvt_table *table, uint32_t groups, uint32_t g, bool is_first, uint8_t *to)
{
    const uint32_t bits = bits_of(loop);
    const size_t tile_bytes = tile_code_bytes(bits, groups);
    const levels all = loop == KVT_LOOP_8 || loop == KVT_LOOP_4 ? (levels){ 0 } : load_levels(bits, table, KVT_DOT_BIAS);
    KVT_ROLLED
    for (uint32_t p = 0; p < w->pages; p++)
        KVT_ROLLED
    for (uint32_t i = 0; i < PAGE_TILES; i++, to += LINES_BYTES) {
        u8x64 line[4];
        if (is_first)
            prefetch_group(bits, w->ahead[p], g * PAGE_TILES + i);
        load_group_lines(loop, &all, w->codes[p] + i * tile_bytes, groups, g, line);
        for (int j = 0; j < 4; j++)
            line[j] = u8x64_swap_cells(line[j]);
        u8x64_swap_quarters(line);
        for (int j = 0; j < 4; j++)
            u8x64_store(to + (size_t)j * 64, line[j]);
    }
}

/* ---- a copy for each width and number of rows ---- */

/* Numbers of rows at once, as powers of two. */
enum { ROW_COUNTS = 4 };
typedef void score_rows_fn(const score_work *w);
typedef void value_rows_fn(const value_work *v);
typedef void turn_fn(const kvt_weighted *w, const kvt_table *table, uint32_t groups, uint32_t g, bool is_first, uint8_t *to);
typedef void make_weights_fn(uint32_t bias, block_weights *to, const kvt_weighted *w, const span_scales *scales, uint32_t k, uint32_t row);

typedef struct width_loops {
    score_rows_fn *score[ROW_COUNTS];
    value_rows_fn *value[ROW_COUNTS];
    turn_fn *turn;
} width_loops;

#define SCORE_OF(name, loop, rows)                                                                                                                   \
    KVT_ONCE void score_##name##_##rows(const score_work *w)                                                                                         \
    {                                                                                                                                                \
        if ((rows)*query_terms(bits_of(loop)) <= KVT_DOT_ROWS)                                                                                       \
            score_rows(loop, rows, w);                                                                                                               \
    }
#define VALUE_OF(name, loop, rows)                                                                                                                   \
    KVT_ONCE void value_##name##_##rows(const value_work *v)                                                                                         \
    {                                                                                                                                                \
        if ((rows) <= VALUE_ROWS)                                                                                                                    \
            value_rows(loop, rows, v);                                                                                                               \
    }
#define WIDTH_OF(name, loop)                                                                                                                         \
    SCORE_OF(name, loop, 1)                                                                                                                          \
    SCORE_OF(name, loop, 2)                                                                                                                          \
    SCORE_OF(name, loop, 4)                                                                                                                          \
    SCORE_OF(name, loop, 8)                                                                                                                          \
    VALUE_OF(name, loop, 1)                                                                                                                          \
    VALUE_OF(name, loop, 2)                                                                                                                          \
    VALUE_OF(name, loop, 4)                                                                                                                          \
    VALUE_OF(name, loop, 8)                                                                                                                          \
    KVT_ONCE void turn_##name(const kvt_weighted *w, const kvt_table *table, uint32_t groups, uint32_t g, bool is_first, uint8_t *to)                \
    {                                                                                                                                                \
        turn_group(loop, w, table, groups, g, is_first, to);                                                                                         \
    }
WIDTH_OF(8, KVT_LOOP_8)
WIDTH_OF(4, KVT_LOOP_4)
WIDTH_OF(t6, KVT_LOOP_table_6)
WIDTH_OF(t5, KVT_LOOP_table_5)
WIDTH_OF(t4, KVT_LOOP_table_4)
WIDTH_OF(t3, KVT_LOOP_table_3)
WIDTH_OF(t2, KVT_LOOP_table_2)

#define LOOPS_OF(name)                                                                                                                               \
    {                                                                                                                                                \
        { score_##name##_1, score_##name##_2, score_##name##_4, score_##name##_8 },                                                                  \
            { value_##name##_1, value_##name##_2, value_##name##_4, value_##name##_8 }, turn_##name                                                  \
    }
static const width_loops widths[KVT_LOOPS] = {
    [KVT_LOOP_8] = LOOPS_OF(8),        [KVT_LOOP_4] = LOOPS_OF(4),        [KVT_LOOP_table_6] = LOOPS_OF(t6), [KVT_LOOP_table_5] = LOOPS_OF(t5),
    [KVT_LOOP_table_4] = LOOPS_OF(t4), [KVT_LOOP_table_3] = LOOPS_OF(t3), [KVT_LOOP_table_2] = LOOPS_OF(t2),
};

#define ROWS_OF(rows)                                                                                                                                \
    KVT_ONCE void turned_##rows(const value_work *v)                                                                                                 \
    {                                                                                                                                                \
        if ((rows) <= VALUE_ROWS)                                                                                                                    \
            turned_rows(rows, v);                                                                                                                    \
    }                                                                                                                                                \
    KVT_ONCE void weights_##rows(uint32_t bias, block_weights *to, const kvt_weighted *w, const span_scales *scales, uint32_t k, uint32_t row)       \
    {                                                                                                                                                \
        if ((rows) <= VALUE_ROWS)                                                                                                                    \
            make_block_weights(bias, rows, to, w, scales, k, row);                                                                                   \
    }
ROWS_OF(1)
ROWS_OF(2)
ROWS_OF(4)
ROWS_OF(8)
static value_rows_fn *const turned_of[ROW_COUNTS] = { turned_1, turned_2, turned_4, turned_8 };
static make_weights_fn *const make_weights_of[ROW_COUNTS] = { weights_1, weights_2, weights_4, weights_8 };

/* How many of n rows at once: a power of two, `most` at most; its logarithm. */
KVT_LANES uint32_t rows_at_once(uint32_t n, uint32_t most)
{
    return most >= 8 && n >= 8 ? 3 : most >= 4 && n >= 4 ? 2 : most >= 2 && n >= 2 ? 1 : 0;
}

/* ---- pages and spans ---- */

static void score(kvt_load_scales_fn *load, const uint8_t *codes, const uint8_t *scales, const kvt_tile_spec *spec, const kvt_queries *q,
                  uint32_t n_tiles, float *logits, kvt_ahead ahead)
{
    const uint32_t groups = spec->dim / 16, bits = spec->scheme->bits, blocks = blocks_in(groups, spec->block_groups);
    const size_t code_bytes = tile_code_bytes(bits, groups), scale_bytes = tile_scale_bytes(groups, spec);
    score_rows_fn *const *of_rows = widths[spec->scheme->loop].score;
    const uint32_t most = KVT_DOT_ROWS / query_terms(bits);
    prefetch_scales(ahead, spec);
    float scale[PAGE_TILES * KVT_MAX_GROUPS * KVT_TILE_TOKENS];
    score_work w = {
        .q = q,
        .table = spec->scheme->table,
        .code_bytes = code_bytes,
        .scales = (size_t)blocks * KVT_TILE_TOKENS,
        .groups = groups,
        .per_dot = dot_groups(spec),
        .per_block = spec->block_groups,
        /* Where all rows are met at once, all tiles are; otherwise one, which stays in L1. */
        .tiles = q->n == 1u << rows_at_once(q->n, most) ? n_tiles : 1,
    };
    for (uint32_t tile = 0; tile < n_tiles; tile++)
        load(scales + tile * scale_bytes, 0, blocks, spec, scale + tile * w.scales, KVT_TILE_TOKENS);
    for (uint32_t tile = 0; tile < n_tiles; tile += w.tiles) {
        w.codes = codes + tile * code_bytes;
        w.scale = scale + tile * w.scales;
        w.logits = logits + (size_t)tile * KVT_TILE_TOKENS;
        w.ahead = (const uint8_t *)((uintptr_t)ahead + tile * code_bytes);
        w.row = 0;
        while (w.row < q->n) {
            const uint32_t n = rows_at_once(q->n - w.row, most);
            of_rows[n](&w);
            w.row += 1u << n;
        }
    }
}

static void value(kvt_load_scales_fn *load, const kvt_tile_spec *spec, const kvt_weighted *w)
{
    const uint32_t groups = spec->dim / 16, per_block = spec->block_groups, blocks = blocks_in(groups, per_block);
    const uint32_t bias = bias_of(spec->scheme->loop);
    value_rows_fn *const *of_rows = widths[spec->scheme->loop].value;
    for (uint32_t p = 0; p < w->pages; p++)
        prefetch_scales(w->ahead[p], spec);
    for (uint32_t b = 0; b < blocks; b += BLOCKS_AT_A_TIME) {
        const uint32_t n_blocks = blocks - b < BLOCKS_AT_A_TIME ? blocks - b : BLOCKS_AT_A_TIME;
        span_scales scales;
        load_span_scales(load, &scales, w, spec, groups, b, n_blocks);
        for (uint32_t row = 0, n; row < w->rows; row += 1u << n) {
            block_weights weights; /* in L1: of 8 rows, 8 KiB */
            value_work v = { .w = w, .table = spec->scheme->table, .weights = &weights, .groups = groups, .row = row };
            n = rows_at_once(w->rows - row, VALUE_ROWS);
            for (uint32_t k = 0; k < n_blocks; k++) {
                make_weights_of[n](bias, &weights, w, &scales, k, row);
                const uint32_t end = groups - (b + k) * per_block < per_block ? groups : (b + k + 1) * per_block;
                for (v.g = (b + k) * per_block; v.g < end; v.g++)
                    of_rows[n](&v);
            }
        }
    }
}

/* Rows begin .. end-1 of block b, which is the k-th of `scales`. */
KVT_LANES void value_key_rows(const kvt_tile_spec *spec, const kvt_weighted *w, const span_scales *scales, uint32_t b, uint32_t k, uint32_t begin,
                              uint32_t end)
{
    const uint32_t groups = spec->dim / 16, per_block = spec->block_groups;
    block_weights weights[TURNED_ROWS / VALUE_ROWS + 2]; /* of 31 rows, the last 7 are three lots */
    for (uint32_t row = begin, lot = 0, n; row < end; row += 1u << n, lot++) {
        n = rows_at_once(end - row, VALUE_ROWS);
        make_weights_of[n](bias_of(spec->scheme->loop), &weights[lot], w, scales, k, row);
    }
    for (uint32_t g = b * per_block; g < groups && g < (b + 1) * per_block; g++) {
        uint8_t turned[KVT_SPAN_TOKENS / KVT_TILE_TOKENS * LINES_BYTES];
        widths[spec->scheme->loop].turn(w, spec->scheme->table, groups, g, begin == 0, turned);
        value_work v = { .w = w, .weights = weights, .groups = groups, .g = g, .row = begin, .turned = turned };
        for (uint32_t n; v.row < end; v.row += 1u << n, v.weights++) {
            n = rows_at_once(end - v.row, VALUE_ROWS);
            turned_of[n](&v);
        }
    }
}

static void value_keys(kvt_load_scales_fn *load, const kvt_tile_spec *spec, const kvt_weighted *w)
{
    const uint32_t groups = spec->dim / 16, blocks = blocks_in(groups, spec->block_groups);
    for (uint32_t p = 0; p < w->pages; p++)
        prefetch_scales(w->ahead[p], spec);
    for (uint32_t b = 0; b < blocks; b += BLOCKS_AT_A_TIME) {
        const uint32_t n = blocks - b < BLOCKS_AT_A_TIME ? blocks - b : BLOCKS_AT_A_TIME;
        span_scales scales;
        load_span_scales(load, &scales, w, spec, groups, b, n);
        for (uint32_t k = 0; k < n; k++)
            for (uint32_t row = 0; row < w->rows; row += TURNED_ROWS)
                value_key_rows(spec, w, &scales, b + k, k, row, w->rows - row < TURNED_ROWS ? w->rows : row + TURNED_ROWS);
    }
}

extern const kvt_loops KVT_EXPORT(dots);
const kvt_loops KVT_EXPORT(dots) = { .prepare = prepare, .score = score, .value = { value_keys, value } };
