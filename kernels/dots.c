/* SPDX-License-Identifier: MIT */
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
    MOST_DOT_GROUPS = 8,  /* whose dot fits 32 bits: 128 channels * 127 * 2^15 */
    BLOCKS_AT_A_TIME = 4, /* whose long chains of operations go side by side */
    LINES_BYTES = 256,    /* of a byte per code: a group of a tile */
    MOST_SETS = 4         /* of sums, of groups side by side */
};

/* Of integers of a byte, or of 16 bits. */
KVT_LANES uint32_t terms_of(bool by_bytes)
{
    return KVT_DOT_BITS == 8 && !by_bytes ? 2 : 1;
}
/* A query of a byte costs 0.1 dB of codes of 5 bits (docs/design.md). */
KVT_LANES bool takes_bytes(uint32_t bits)
{
    return bits <= 5;
}
KVT_LANES uint32_t query_terms(uint32_t bits)
{
    return terms_of(takes_bytes(bits));
}
/* Weights of a byte, unsigned, lose next to nothing with codes of up to 5 bits (docs/accuracy.md). */
KVT_LANES bool weighs_by_bytes(uint32_t bits)
{
    return bits <= 5;
}
KVT_LANES uint32_t weight_terms(uint32_t bits)
{
    return terms_of(weighs_by_bytes(bits));
}
/* Whether such queries meet levels as bytes, without a bias, where dots are of halfwords otherwise. */
KVT_LANES bool scores_s7(uint32_t bits)
{
#if defined(KVT_DOT_S7)
    return takes_bytes(bits);
#else
    (void)bits;
    return false;
#endif
}
/* Whether a query's byte is stored as it is, without the 2^8 that it counts for. */
KVT_LANES bool stores_bytes(uint32_t bits)
{
    return takes_bytes(bits) && (KVT_DOT_BITS == 8 || scores_s7(bits));
}
KVT_LANES uint8_t score_bias(uint32_t bits)
{
    return scores_s7(bits) ? 0 : KVT_DOT_BIAS;
}
/* Groups of a block whose dot fits 32 bits. */
KVT_LANES uint32_t dot_groups(const kvt_tile_spec *spec)
{
    return spec->block_groups < MOST_DOT_GROUPS ? spec->block_groups : MOST_DOT_GROUPS;
}
KVT_LANES uint32_t bits_of(kvt_loop_id loop)
{
    return loop == KVT_LOOP_8         ? 8
           : loop == KVT_LOOP_table_6 ? 6
           : loop == KVT_LOOP_table_5 ? 5
           : loop == KVT_LOOP_table_4 ? 4
           : loop == KVT_LOOP_table_3 ? 3
                                      : 2;
}

KVT_LANES u8x64 with_bias(bool has_bias, u8x64 line)
{
    return has_bias ? u8x64_from_i32(i32x16_xor(i32x16_from_u8(line), i32x16_set1(0x80808080))) : line;
}
/* Of two lines in one of nibbles the first or the second. */
KVT_LANES u8x64 levels_of_half(const levels *table, u8x64 two, bool is_second)
{
    return levels_of_nibbles(table, is_second ? u8x64_from_i32(i32x16_shr(i32x16_from_u8(two), 4)) : two);
}
/* The four lines of a byte per code of a group of a K or V tile, ready for dots: with the bias, if they have one. */
KVT_LANES void load_lines(kvt_loop_id loop, bool has_bias, const levels *table, const uint8_t *codes, uint32_t groups, size_t g, u8x64 line[4])
{
    if (loop == KVT_LOOP_8) {
        for (uint32_t i = 0; i < 4; i++)
            line[i] = with_bias(has_bias, u8x64_load(codes + (size_t)g * LINES_BYTES + (size_t)i * 64));
        return;
    }
    if (loop == KVT_LOOP_table_4) {
        for (uint32_t i = 0; i < 4; i += 2) {
            const u8x64 two = u8x64_load(codes + g * (LINES_BYTES / 2) + (size_t)i * 32);
            line[i] = levels_of_half(table, two, false);
            line[i + 1] = levels_of_half(table, two, true);
        }
        return;
    }
    planes_load(bits_of(loop), codes, groups, g, line);
    for (uint32_t i = 0; i < 4; i++)
        line[i] = levels_of(bits_of(loop), table, line[i]);
}

/* Whether a group's lines are made from codes one by one when they are met: where there are few registers, and lines have nothing in common. */
KVT_LANES bool makes_lines_late(kvt_loop_id loop)
{
    return KVT_FEW_REGISTERS && (loop == KVT_LOOP_8 || loop == KVT_LOOP_table_4);
}
typedef struct group_lines {
    u8x64 line[4];
#if KVT_FEW_REGISTERS /* elsewhere nothing but lines, as compilers may not have structs of SVE's registers and of anything else */
    bool are_made, has_bias;
    kvt_loop_id loop;
    const levels *table;
    const uint8_t *codes;
#endif
} group_lines;
/* Where the caller is to put them. */
KVT_LANES u8x64 *lines_to_make(group_lines *l)
{
#if KVT_FEW_REGISTERS
    l->are_made = true;
#endif
    return l->line;
}
KVT_LANES void load_group_lines(group_lines *l, kvt_loop_id loop, bool has_bias, const levels *table, const uint8_t *codes, uint32_t groups, size_t g)
{
#if KVT_FEW_REGISTERS
    if (makes_lines_late(loop)) {
        l->are_made = false;
        l->has_bias = has_bias;
        l->loop = loop;
        l->table = table;
        l->codes = codes + g * (loop == KVT_LOOP_8 ? LINES_BYTES : LINES_BYTES / 2);
        return;
    }
#endif
    load_lines(loop, has_bias, table, codes, groups, g, lines_to_make(l));
}
KVT_LANES u8x64 group_line(const group_lines *l, uint32_t j)
{
#if KVT_FEW_REGISTERS
    if (!l->are_made)
        return l->loop == KVT_LOOP_8 ? with_bias(l->has_bias, u8x64_load(l->codes + (size_t)j * 64))
                                     : levels_of_half(l->table, u8x64_load(l->codes + (size_t)(j / 2) * 64), j % 2 == 1);
#endif
    return l->line[j];
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

/* What a line of codes is multiplied by: integers, weights of an unsigned byte, or queries of a byte as scores_s7 has them. */
typedef enum factor_kind { INTEGERS, U8_WEIGHTS, S7_QUERIES } factor_kind;

/* `rows` times `terms` sums of each set get the dots with its group's lines. Sum v is row v / terms, term v % terms; rows' quads are a chunk apart.
 */
#define ADD_LINE(add, line_type, j)                                                                                                                  \
    {                                                                                                                                                \
        line_type codes_of_line[PAGE_TILES];                                                                                                         \
        KVT_FOR_ROWS                                                                                                                                 \
        for (uint32_t set = 0; set < sets; set++)                                                                                                    \
            codes_of_line[set] = line_type##_of(group_line(&lines[set], j));                                                                         \
        KVT_FOR_ROWS                                                                                                                                 \
        for (uint32_t v = 0; v < rows * terms; v++)                                                                                                  \
            KVT_FOR_ROWS                                                                                                                             \
        for (uint32_t set = 0; set < sets; set++)                                                                                                    \
            sum[set * rows * terms + v] =                                                                                                            \
                add(sum[set * rows * terms + v], codes_of_line[set], dot_quads_at(quads + v / terms * CHUNK_BYTES + v % terms * KVT_DOT_LOWER), j);  \
    }
#define ADD_LINES(add, line_type) ADD_LINE(add, line_type, 0) ADD_LINE(add, line_type, 1) ADD_LINE(add, line_type, 2) ADD_LINE(add, line_type, 3)
KVT_LANES void add_group(factor_kind kind, uint32_t sets, uint32_t rows, uint32_t terms, uint32_t half, dot_sum *sum, const group_lines *lines,
                         const uint8_t *quads)
{
#if defined(KVT_DOT_PAIRS)
    if (is_paired(rows * terms)) {
        for (uint32_t h = half; h < half + halves_at_once(rows * terms); h++) {
            const u8x64 cells[2] = { dot_cells(group_line(lines, 0), group_line(lines, 1), h),
                                     dot_cells(group_line(lines, 2), group_line(lines, 3), h) };
            KVT_FOR_ROWS
            for (uint32_t v = 0; v < rows * terms; v += 2) {
                sum[v + h] = dot_add_two(sum[v + h], cells, quads + v / terms * CHUNK_BYTES);
            }
        }
        return;
    }
#endif
    (void)half;
#if defined(KVT_DOT_S7)
    if (kind == S7_QUERIES) {
        ADD_LINES(dot_add_s7, dot_line_s7)
        return;
    }
#endif
    if (kind == U8_WEIGHTS) {
        ADD_LINES(dot_add_u8, dot_line)
    } else if (sets >= 2) {
        ADD_LINES(dot_add_shared, dot_line)
    } else {
        ADD_LINES(dot_add, dot_line)
    }
}

/* The bias counts once: in the last term, which is added as it is. Without one all start with zero. */
KVT_LANES void start_sums(bool has_bias, uint32_t rows, uint32_t terms, dot_sum *sum, const uint32_t *start)
{
#if defined(KVT_DOT_PAIRS)
    if (is_paired(rows * terms)) {
        KVT_FOR_ROWS
        for (uint32_t v = 0; v < rows * terms; v += 2)
            sum[v] = sum[v + 1] = dot_start_two(has_bias && terms == 1 ? start[v] : 0, has_bias ? start[(v + 1) / terms] : 0);
        return;
    }
#endif
    KVT_FOR_ROWS
    for (uint32_t v = 0; v < rows * terms; v++)
        sum[v] = dot_start(has_bias && v % terms == terms - 1 ? start[v / terms] : 0);
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

/* As much of the next page as group g of a tile has lines. */
KVT_LANES void fetch_group(uint32_t bits, const uint8_t *ahead, size_t tile_bytes, uint32_t tile, size_t g)
{
    KVT_FOR_ROWS
    for (uint32_t j = 0; j < (bits + 1) / 2; j++)
        prefetch_near(ahead, tile * tile_bytes + ((size_t)g * ((bits + 1) / 2) + j) * 64);
}
/* The scales of a page lie behind its codes. */
static void fetch_scales(const kvt_page_side *page, const kvt_tile_spec *spec)
{
    const uint32_t groups = spec->dim / 16;
    const size_t bytes = PAGE_TILES * tile_scale_bytes(groups, spec);
    for (size_t i = 0; i < bytes; i += 64)
        prefetch_near(page->ahead, PAGE_TILES * tile_code_bytes(spec->scheme->bits, groups) + i);
}

/* ---- K ---- */

KVT_LANES void store_query(uint32_t bits, uint8_t *to, const u8x64 half[2])
{
#if defined(KVT_DOT_S7)
    if (scores_s7(bits)) {
        dot_store_s7(to, half[0], half[1]);
        return;
    }
#endif
    if (query_terms(bits) == 2)
        dot_store(to, half[0], half[1], 2);
    else
        dot_store(to, half[0], half[1], 1);
}

/* To multiples of the row's largest number / 32639, the largest number both of whose terms are bytes; or of 1/127 of it where a term is enough. */
static void prepare(const kvt_queries *q, const kvt_tile_spec *spec)
{
    const uint32_t groups = spec->dim / 16, per_dot = dot_groups(spec), blocks = blocks_in(groups, per_dot);
    const bool is_byte = takes_bytes(spec->scheme->bits);
    const uint32_t terms = query_terms(spec->scheme->bits);
    for (uint32_t row = 0; row < q->n; row++) {
        const float *x = q->x + (size_t)row * spec->dim;
        i32x16 m[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
        KVT_ROLLED
        for (uint32_t g = 0; g < groups; g++)
            m[0] = i32x16_max_u(m[0], magnitude_bits(f32x16_load(x + 16 * g)));
        uint32_t largest[4];
        quad_max_u(m, largest);
        const bool is_usable = largest[0] > 0 && largest[0] < 0x7f800000;
        float amax;
        memcpy(&amax, largest, 4);
        const float steps = is_byte ? 127 : 32639, r = is_usable ? steps / amax : 0;
        q->factor[row] = is_usable ? amax / steps * (is_byte ? 0x1p-8f : 1) : amax; /* otherwise 0, an infinity or NaN */
        uint32_t *start = q->start + row;
        for (uint32_t b = 0; b < blocks; b++)
            start[(size_t)b * q->n] = 0;
        for (uint32_t begin = 0; begin < groups; begin += CHUNK_GROUPS) {
            i32x16 number[CHUNK_GROUPS];
            KVT_ROLLED
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
            const uint32_t bias = score_bias(spec->scheme->bits) * (is_byte && KVT_DOT_BITS == 16 ? 256u : 1u);
            for (uint32_t i = 0; i < CHUNK_GROUPS && begin + i < groups; i++)
                start[(size_t)((begin + i) / per_dot) * q->n] -= bias * sum[i];
            u8x64 half[2];
            words_in_order(number, half);
            uint8_t *to = q->quads + (size_t)(begin / CHUNK_GROUPS) * q->n * CHUNK_BYTES + row_at(row, terms);
            store_query(spec->scheme->bits, to, half);
        }
    }
}

/* A page, and the rows that meet it: `row` is the first. */
typedef struct score_work {
    const kvt_queries *q;
    const kvt_table *table;
    const kvt_page_side *page;
    const uint8_t *ahead;                  /* what is fetched: for the first rows the next page, then this one */
    const float (*scale)[KVT_PAGE_TOKENS]; /* of each block */
    size_t code_bytes;                     /* of a tile */
    uint32_t groups, per_dot, per_block;
    uint32_t row, first_tile, end_tile;
    float *logits;
} score_work;

/* Tiles that share what is loaded of queries: all of a page, where sums are few. (Two rows of 3 or 2 bits gain less than their text costs.) */
KVT_LANES uint32_t tiles_at_once(uint32_t bits, uint32_t rows)
{
    return KVT_DOT_SETS > 1 && takes_bytes(bits) && rows <= (bits < 4 ? 1 : 2) ? PAGE_TILES : KVT_DOT_SETS;
}
/* Some tiles, for some rows. */
KVT_LANES void score_tiles(kvt_loop_id loop, uint32_t rows, uint32_t half, const score_work *w, const levels *all, uint32_t tile)
{
    const uint32_t bits = bits_of(loop), terms = query_terms(bits), groups = w->groups, per_dot = w->per_dot, n = w->q->n, sums = rows * terms;
    const uint32_t sets = tiles_at_once(bits, rows);
    const uint8_t *quads = w->q->quads + row_at(w->row, terms);
    const uint32_t *start = w->q->start + w->row;
    const size_t code_bytes = w->code_bytes;
    const uint8_t *codes = w->page->codes + tile * code_bytes, *ahead = (const uint8_t *)((uintptr_t)w->ahead + tile * code_bytes);
    const float *scale = w->scale[0] + (size_t)tile * KVT_TILE_TOKENS;
    const size_t next_chunk = (size_t)n * CHUNK_BYTES - CHUNK_GROUPS * KVT_DOT_STEP;
    const uint32_t scale_shift = (uint32_t)__builtin_ctz(w->per_block);
    const float *factor = w->q->factor + w->row;
    float *logits = w->logits + (size_t)w->row * KVT_PAGE_TOKENS + (size_t)tile * KVT_TILE_TOKENS;
    f32x16 total[KVT_DOT_ROWS];
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < sets * rows; r++)
        total[r] = f32x16_set1(0);
    KVT_ROLLED
    for (uint32_t begin = 0; begin < groups; begin += per_dot, start += n) {
        const uint32_t end = groups - begin < per_dot ? groups : begin + per_dot;
        dot_sum sum[KVT_DOT_ROWS];
        KVT_FOR_ROWS
        for (uint32_t set = 0; set < sets; set++)
            start_sums(score_bias(bits) != 0, rows, terms, sum + set * sums, start);
        KVT_ROLLED
        for (size_t g = begin; g < end; g++) {
            group_lines lines[PAGE_TILES];
            KVT_FOR_ROWS
            for (uint32_t set = 0; set < sets; set++) {
                /* Without a branch later rows fetch what is there; wide lines are many, and a branch takes 2 % less time. */
                if (half == 0 && (bits <= 5 || w->row == 0))
                    fetch_group(bits, ahead, code_bytes, set, g);
                load_group_lines(&lines[set], loop, score_bias(bits) != 0, all, codes + set * code_bytes, groups, g);
            }
            add_group(scores_s7(bits) ? S7_QUERIES : INTEGERS, sets, rows, terms, half, sum, lines, quads);
            quads += KVT_DOT_STEP;
            if (g % CHUNK_GROUPS == CHUNK_GROUPS - 1)
                quads += next_chunk;
        }
        KVT_FOR_ROWS
        for (uint32_t set = 0; set < sets; set++) {
            const f32x16 s = f32x16_load(scale + (size_t)(begin >> scale_shift) * KVT_PAGE_TOKENS + (size_t)set * KVT_TILE_TOKENS);
            KVT_FOR_ROWS
            for (uint32_t r = 0; r < rows; r++)
                total[set * rows + r] = f32x16_fma(finish_sum(rows, r, terms, sum + set * sums), s, total[set * rows + r]);
        }
    }
    /* A byte that was not shifted up by 8 */
    const float unit = stores_bytes(bits) ? 0x1p8f : 1;
    KVT_FOR_ROWS
    for (uint32_t set = 0; set < sets; set++)
        KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        store_lanes(sums, half, logits + r * KVT_PAGE_TOKENS + set * KVT_TILE_TOKENS,
                    f32x16_mul(total[set * rows + r], f32x16_set1(factor[r] * unit)));
}

KVT_LANES void score_rows(kvt_loop_id loop, uint32_t rows, const score_work *w)
{
    const uint32_t bits = bits_of(loop);
    const levels all = loop == KVT_LOOP_8 ? (levels){ 0 } : load_levels(bits, w->table, score_bias(bits));
    KVT_ROLLED
    for (uint32_t tile = w->first_tile; tile < w->end_tile; tile += tiles_at_once(bits, rows))
        KVT_FOR_ROWS
    for (uint32_t half = 0; half < 2; half += halves_at_once(rows * query_terms(bits)))
        score_tiles(loop, rows, half, w, &all, tile);
}

/* ---- V ---- */

/* Whether levels are negated where scales are negative, so that weights need no sign: where they are unsigned bytes. */
KVT_LANES bool negates(uint32_t bits)
{
    return KVT_DOT_BITS == 8 && weighs_by_bytes(bits);
}

/* What is added to codes, to make them bytes that dots can take; unsigned weights take signed ones. */
KVT_LANES uint32_t bias_of(bool by_bytes)
{
    return KVT_DOT_BITS == 8 && by_bytes ? 0 : KVT_DOT_BIAS;
}

/* Scales of a page's values: magnitudes where levels are negated, and then their signs, as quads lie. */
typedef struct page_scales {
    float scale[KVT_MAX_GROUPS][KVT_PAGE_TOKENS];
    float largest[KVT_PAGE_TOKENS]; /* magnitude of each token's */
    uint64_t spoilt;                /* blocks with scales that are not finite, which count as zeros */
    uint8_t signs[KVT_MAX_GROUPS][KVT_PAGE_TOKENS];
} page_scales;

_Static_assert(KVT_MAX_GROUPS <= 64, "a bit for each block");
KVT_ONCE void leave_out_spoilt(page_scales *to, uint32_t blocks)
{
    const i32x16 zero = i32x16_set1(0);
    i32x16 most[PAGE_TILES] = { zero, zero, zero, zero };
    KVT_ROLLED
    for (uint32_t b = 0; b < blocks; b++)
        KVT_ROLLED
    for (uint32_t i = 0; i < PAGE_TILES; i++) {
        float *at = to->scale[b] + 16 * i;
        const f32x16 s = f32x16_load(at);
        const mask16 is_spoilt = i32x16_gt(magnitude_bits(s), i32x16_set1(0x7f7fffff));
        to->spoilt |= (uint64_t)mask16_any(is_spoilt) << b;
        const f32x16 kept = f32x16_from_bits(i32x16_select(is_spoilt, zero, i32x16_from_f32_bits(s)));
        f32x16_store(at, kept);
        most[i] = i32x16_max_u(most[i], magnitude_bits(kept));
        i32x16_store(to->largest + 16 * i, most[i]);
    }
}

/* Zeros for tokens that are not first .. end-1. */
KVT_ONCE void leave_out_unseen(page_scales *to, const kvt_weighted *w, uint32_t blocks)
{
    KVT_ROLLED
    for (uint32_t b = 0; b < blocks; b++)
        KVT_ROLLED
    for (uint32_t i = 0; i < PAGE_TILES; i++) {
        f32x16 s = f32x16_set1(0);
        if (i >= w->page->first_tile && i < w->page->end_tile)
            s = lanes_between(f32x16_load(to->scale[b] + 16 * i), 16 * i, w->first, w->end, s);
        f32x16_store(to->scale[b] + 16 * i, s);
    }
}

KVT_ONCE void load_page_scales(kvt_load_scales_fn *load, page_scales *to, const kvt_weighted *w, const kvt_tile_spec *spec)
{
    const uint32_t bits = spec->scheme->bits, blocks = blocks_in(spec->dim / 16, spec->block_groups);
    load_scales_of_tiles(load, w->page, w->page->first_tile, w->page->end_tile, spec, 0, blocks, to->scale[0]);
    if (w->first > 0 || w->end < KVT_PAGE_TOKENS)
        leave_out_unseen(to, w, blocks);
    i32x16 most[PAGE_TILES] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
    KVT_ROLLED
    for (uint32_t b = 0; b < blocks; b++) {
        f32x16 s[PAGE_TILES];
        i32x16 sign[PAGE_TILES];
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < PAGE_TILES; i++) {
            s[i] = f32x16_load(to->scale[b] + 16 * i);
            most[i] = i32x16_max_u(most[i], magnitude_bits(s[i]));
            sign[i] = i32x16_shr(i32x16_from_f32_bits(s[i]), 31);
        }
        if (!negates(bits))
            continue;
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < PAGE_TILES; i++)
            i32x16_store(to->scale[b] + 16 * i, magnitude_bits(s[i]));
        u8x64_store(to->signs[b], sign_bytes(bits, u8x64_pack_u8(sign)));
    }
    KVT_FOR_ROWS
    for (uint32_t i = 0; i < PAGE_TILES; i++)
        i32x16_store(to->largest + 16 * i, most[i]);
    to->spoilt = 0;
    if (mask16_any(i32x16_gt(i32x16_max_u(i32x16_max_u(most[0], most[1]), i32x16_max_u(most[2], most[3])), i32x16_set1(0x7f7fffff))))
        leave_out_spoilt(to, blocks);
}

/* Weights of a byte in two passes, where they have 15 bits. */
typedef enum weight_part { WHOLE, UPPER_BYTE, LOWER_BITS } weight_part;

/* Rows that meet lines which were unpacked once, and whose weights for a few blocks lie in L1. */
enum { LOT_ROWS = 32, LOT_CHUNKS = 128 };
typedef struct lot {
    float weights[LOT_ROWS][KVT_PAGE_TOKENS]; /* such that products with scales are integers, when they are rounded */
    float unit[LOT_ROWS];                     /* what one of these counts */
    uint8_t quads[LOT_CHUNKS * CHUNK_BYTES];  /* [block][row] */
    uint32_t start[LOT_CHUNKS + 4];           /* what makes up for the codes' bias */
} lot;

/* The largest product of a row's weights with a scale becomes 255, or what its bits allow. */
KVT_ONCE void scale_weights(lot *to, const kvt_weighted *w, const page_scales *scales, float steps, uint32_t row, uint32_t rows)
{
    KVT_ROLLED
    for (uint32_t begin = 0; begin < rows; begin += 4) {
        const float *weights = w->weights + (size_t)(row + begin) * KVT_PAGE_TOKENS;
        i32x16 most[4];
        KVT_FOR_ROWS
        for (uint32_t r = 0; r < 4; r++) {
            most[r] = i32x16_set1(0);
            if (begin + r >= rows)
                continue;
            KVT_FOR_ROWS
            for (uint32_t i = 0; i < PAGE_TILES; i++)
                most[r] = i32x16_max_u(
                    most[r], magnitude_bits(f32x16_mul(f32x16_load(weights + r * KVT_PAGE_TOKENS + 16 * i), f32x16_load(scales->largest + 16 * i))));
        }
        uint32_t largest[4];
        quad_max_u(most, largest);
        for (uint32_t r = 0; r < 4 && begin + r < rows; r++) {
            float product;
            memcpy(&product, &largest[r], 4);
            const bool is_usable = product >= 0x1p-96f && product <= FLT_MAX;
            const float unit = product * (1 / steps); /* an infinity or NaN tells */
            to->unit[begin + r] = unit < 0x1p-96f ? 0 : unit;
            const f32x16 factor = f32x16_set1(is_usable ? steps / product : 0);
            KVT_FOR_ROWS
            for (uint32_t i = 0; i < PAGE_TILES; i++)
                f32x16_store(to->weights[begin + r] + 16 * i, f32x16_mul(f32x16_load(weights + r * KVT_PAGE_TOKENS + 16 * i), factor));
        }
    }
}

KVT_ONCE void scale_units(lot *to, uint32_t rows, float factor)
{
    KVT_ROLLED
    for (uint32_t r = 0; r < rows; r += 16)
        f32x16_store(to->unit + r, f32x16_mul(f32x16_load(to->unit + r), f32x16_set1(factor)));
}
/* Of four lines of integers. */
KVT_ONCE void keep_part(i32x16 x[PAGE_TILES], weight_part part)
{
    KVT_ROLLED
    for (uint32_t i = 0; i < PAGE_TILES; i++) {
        const i32x16 sign = i32x16_select(i32x16_gt(i32x16_set1(0), x[i]), i32x16_set1(UINT32_MAX), i32x16_set1(0)),
                     m = i32x16_sub(i32x16_xor(x[i], sign), sign);
        const i32x16 some = part == UPPER_BYTE ? i32x16_shr(m, 7) : i32x16_and(m, i32x16_set1(127));
        x[i] = i32x16_sub(i32x16_xor(some, sign), sign);
    }
}

KVT_LANES void store_quads(bool by_bytes, uint8_t *quads, const i32x16 x[PAGE_TILES])
{
    if (by_bytes && KVT_DOT_BITS == 8) {
        const u8x64 bytes = u8x64_pack_u8(x);
        dot_store_u8(quads, KVT_DOT_U8_OFFSET ? u8x64_from_i32(i32x16_xor(i32x16_from_u8(bytes), i32x16_set1(0x80808080))) : bytes);
        return;
    }
    u8x64 half[2];
    words_in_order(x, half);
    dot_store(quads, half[0], half[1], KVT_DOT_BITS == 8 ? 2 : 1);
}

/* Integers of some rows for `n` blocks. */
KVT_LANES void make_quads(bool by_bytes, lot *to, const page_scales *scales, weight_part part, uint32_t rows, uint32_t b, uint32_t n)
{
    const uint32_t terms = terms_of(by_bytes), bias = bias_of(by_bytes);
    KVT_ROLLED
    for (uint32_t k = 0; k < n; k++) {
        f32x16 s[PAGE_TILES];
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < PAGE_TILES; i++)
            s[i] = f32x16_load(scales->scale[b + k] + 16 * i);
        KVT_ROLLED
        for (uint32_t begin = 0; begin < rows; begin += 4) {
            i32x16 sum[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
            const uint32_t end = rows - begin < 4 ? rows : begin + 4;
            KVT_ROLLED
            for (uint32_t r = begin; r < end; r++) {
                i32x16 x[PAGE_TILES];
                KVT_FOR_ROWS
                for (uint32_t i = 0; i < PAGE_TILES; i++)
                    x[i] = i32x16_from_f32_rne(f32x16_mul(f32x16_load(to->weights[r] + 16 * i), s[i]));
                if (part != WHOLE) {
                    i32x16 some[PAGE_TILES] = { x[0], x[1], x[2], x[3] }; /* so that x itself stays in registers */
                    keep_part(some, part);
                    KVT_FOR_ROWS
                    for (uint32_t i = 0; i < PAGE_TILES; i++)
                        x[i] = some[i];
                }
                uint8_t *quads = to->quads + (size_t)k * rows * CHUNK_BYTES + row_at(r, terms);
                store_quads(by_bytes, quads, x);
                if (bias)
                    sum[r - begin] = i32x16_add(i32x16_add(x[0], x[1]), i32x16_add(x[2], x[3]));
            }
            if (!bias)
                continue;
            uint32_t total[4];
            quad_sum(sum, total);
            for (uint32_t r = begin; r < rows && r < begin + 4; r++)
                to->start[k * rows + r] = 0u - bias * total[r - begin];
        }
    }
}
KVT_ONCE void make_bytes(lot *to, const page_scales *scales, weight_part part, uint32_t rows, uint32_t b, uint32_t n)
{
    make_quads(true, to, scales, part, rows, b, n);
}
KVT_ONCE void make_words(lot *to, const page_scales *scales, uint32_t rows, uint32_t b, uint32_t n)
{
    make_quads(false, to, scales, WHOLE, rows, b, n);
}

/* Groups begin .. end-1 of a page's values, and the rows whose sums they go to. */
typedef struct value_work {
    const kvt_weighted *w;
    const kvt_table *table;
    const lot *lot;
    const uint8_t (*signs)[KVT_PAGE_TOKENS]; /* of each block, from the first on */
    size_t tile_bytes;
    uint32_t groups, block_shift, begin, end; /* a block's groups are a power of two */
    uint32_t lot_row, lot_rows, row;          /* the lot's first, how many it has, and which of them */
    const uint8_t *unpacked;                  /* lines ready for dots: [tile][set][4] */
} value_work;

#if KVT_DOT_U8_OFFSET
/* Weights of a byte, less 128, are signed; so 128 times the sum of codes is missing, whatever the row. */
static const uint8_t kvt_ones64[64] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
KVT_LANES void count_group(dot_sum *all, const group_lines *lines)
{
    const dot_quads ones = dot_quads_at(kvt_ones64);
    *all = dot_add(*all, dot_line_of(group_line(lines, 0)), ones, 0);
    *all = dot_add(*all, dot_line_of(group_line(lines, 1)), ones, 0);
    *all = dot_add(*all, dot_line_of(group_line(lines, 2)), ones, 0);
    *all = dot_add(*all, dot_line_of(group_line(lines, 3)), ones, 0);
}
#endif

/* Lines of codes as weights of the loop want them: levels with their scales' signs, or with a bias. */
KVT_LANES void load_value_lines(group_lines *lines, kvt_loop_id loop, bool are_keys, const value_work *v, const levels *all, const uint8_t *signs,
                                uint32_t tile, size_t g)
{
    const uint32_t bits = bits_of(loop);
    const uint8_t *codes = v->w->page->codes + tile * v->tile_bytes;
    if (makes_lines_late(loop) && !negates(bits) && !are_keys) {
        load_group_lines(lines, loop, KVT_DOT_BIAS != 0, all, codes, v->groups, g);
        return;
    }
    u8x64 *line = lines_to_make(lines);
    if (negates(bits))
        planes_load(bits, codes, v->groups, g, line);
    else
        load_lines(loop, KVT_DOT_BIAS != 0, all, codes, v->groups, g, line);
    if (are_keys) {
        for (int j = 0; j < 4; j++)
            line[j] = u8x64_swap_cells(line[j]);
        u8x64_swap_quarters(line);
    }
    for (uint32_t j = 0; negates(bits) && j < 4; j++)
        line[j] = signed_levels_of(bits, all, line[j], signs + 16 * tile + 4 * j);
}
KVT_LANES levels load_value_levels(kvt_loop_id loop, const kvt_table *table)
{
    if (loop == KVT_LOOP_8)
        return (levels){ 0 };
    return negates(bits_of(loop)) ? load_signed_levels(bits_of(loop), table) : load_levels(bits_of(loop), table, KVT_DOT_BIAS);
}

/* Some groups side by side, of each two of them one block. The loop is that of lines which are not unpacked yet. */
KVT_LANES void value_groups(bool is_unpacked, kvt_loop_id loop, bool by_bytes, uint32_t sets, uint32_t rows, uint32_t half, const value_work *v,
                            const levels *all, size_t g)
{
    const uint32_t terms = terms_of(by_bytes), sums = rows * terms;
    const size_t k = (g - v->begin) >> v->block_shift;
    const kvt_page_side *page = v->w->page;
    const uint8_t *quads = v->lot->quads + k * v->lot_rows * CHUNK_BYTES + row_at(v->row, terms);
    const size_t stride = v->w->sum_stride, pair_stride = v->block_shift > 1 ? 0 : (size_t)v->lot_rows * CHUNK_BYTES;
    const uint8_t *signs = v->signs[k];
    const size_t sign_stride = v->block_shift > 1 ? 0 : KVT_PAGE_TOKENS;
    const float *unit = v->lot->unit + v->row;
    float *to = v->w->sums + (v->lot_row + v->row) * stride + (size_t)16 * g;
    dot_sum sum[KVT_DOT_ROWS], codes[1] = { dot_start(0) };
    KVT_FOR_ROWS
    for (uint32_t set = 0; set < sets; set++)
        start_sums(bias_of(by_bytes) != 0, rows, terms, sum + set * sums,
                   v->lot->start + (k + (v->block_shift > 1 ? 0 : set / 2)) * v->lot_rows + v->row);
    KVT_ROLLED
    for (uint32_t i = page->first_tile; i < page->end_tile; i++) {
        KVT_FOR_ROWS
        for (uint32_t pair = 0; pair < sets; pair += 2) {
            const uint32_t n = sets == 1 ? 1 : 2;
            group_lines lines[2];
            KVT_FOR_ROWS
            for (uint32_t set = 0; set < n; set++) {
                if (is_unpacked) {
                    load_group_lines(&lines[set], KVT_LOOP_8, false, NULL, v->unpacked, 0, 2 * i + set);
                } else {
                    if (half == 0)
                        fetch_group(bits_of(loop), page->ahead, v->tile_bytes, i, g + pair + set);
                    load_value_lines(&lines[set], loop, false, v, all, signs + pair / 2 * sign_stride, i, g + pair + set);
                }
            }
            add_group(by_bytes && KVT_DOT_BITS == 8 ? U8_WEIGHTS : INTEGERS, n, rows, terms, half, sum + pair * sums, lines,
                      quads + pair / 2 * pair_stride + KVT_DOT_STEP * i);
#if KVT_DOT_U8_OFFSET
            if (by_bytes)
                count_group(codes, lines);
#endif
        }
    }
    (void)codes;
    KVT_FOR_ROWS
    for (uint32_t set = 0; set < sets; set++)
        KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++) {
        f32x16 x = finish_sum(rows, r, terms, sum + set * sums);
#if KVT_DOT_U8_OFFSET
        if (by_bytes)
            x = f32x16_from_i32(i32x16_add(lanes_of_sum(rows, r, sum + set * sums), i32x16_shl(dot_finish(codes[0]), 7)));
#endif
        float *at = to + r * stride + set * 16;
        store_lanes(rows * terms, half, at, f32x16_fma(x, f32x16_set1(unit[r]), f32x16_load(at)));
    }
}
/* As many sets as there are registers for. */
KVT_LANES uint32_t sets_at_once(uint32_t sums)
{
    return KVT_DOT_SETS == 1 ? 1 : sums * MOST_SETS > KVT_DOT_ROWS ? 2 : MOST_SETS;
}
KVT_LANES void value_rows(kvt_loop_id loop, uint32_t rows, const value_work *v)
{
    const bool by_bytes = weighs_by_bytes(bits_of(loop));
    const uint32_t sums = rows * terms_of(by_bytes), sets = sets_at_once(sums);
    const levels all = load_value_levels(loop, v->table);
    KVT_ROLLED
    for (size_t g = v->begin; g < v->end; g += sets)
        KVT_FOR_ROWS
    for (uint32_t half = 0; half < 2; half += halves_at_once(sums))
        value_groups(false, loop, by_bytes, sets, rows, half, v, &all, g);
}
KVT_LANES void unpacked_rows(bool by_bytes, uint32_t sets, uint32_t rows, const value_work *v, uint32_t g)
{
    const uint32_t terms = terms_of(by_bytes);
    KVT_FOR_ROWS
    for (uint32_t half = 0; half < 2; half += halves_at_once(rows * terms))
        value_groups(true, KVT_LOOP_8, by_bytes, sets, rows, half, v, NULL, g);
}

/* Lines of some groups, for lots of rows, or of keys that are values too: the latent of MLA. */
KVT_LANES void unpack_groups(kvt_loop_id loop, bool are_keys, const value_work *v, uint32_t g, uint32_t n, uint8_t *to)
{
    const levels all = load_value_levels(loop, v->table);
    const uint8_t *signs = v->signs[(g - v->begin) >> v->block_shift];
    KVT_ROLLED
    for (uint32_t i = v->w->page->first_tile; i < v->w->page->end_tile; i++)
        KVT_ROLLED
    for (uint32_t set = 0; set < n; set++) {
        group_lines lines;
        if (!are_keys && v->lot_row == 0)
            fetch_group(bits_of(loop), v->w->page->ahead, v->tile_bytes, i, g + set);
        load_value_lines(&lines, loop, are_keys, v, &all, signs, i, g + set);
        KVT_FOR_ROWS
        for (uint32_t j = 0; j < 4; j++)
            u8x64_store(to + (size_t)(2 * i + set) * LINES_BYTES + (size_t)j * 64, group_line(&lines, j));
    }
}

/* ---- a copy for each width and number of rows ---- */

/* Numbers of rows at once, as powers of two; of lines that are not unpacked at most 4. */
enum { ROW_COUNTS = 4, DIRECT_COUNTS = 3 };
typedef void score_rows_fn(const score_work *w);
typedef void value_rows_fn(const value_work *v);
typedef void unpacked_rows_fn(uint32_t sets, const value_work *v, uint32_t g);
typedef void unpack_fn(bool are_keys, const value_work *v, uint32_t g, uint32_t n, uint8_t *to);

typedef struct width_loops {
    score_rows_fn *score[ROW_COUNTS];
    value_rows_fn *value[DIRECT_COUNTS];
    unpack_fn *unpack;
} width_loops;

#define SCORE_OF(name, loop, rows)                                                                                                                   \
    KVT_ONCE void score_##name##_##rows(const score_work *w)                                                                                         \
    {                                                                                                                                                \
        if ((rows)*query_terms(bits_of(loop)) * KVT_DOT_SETS <= KVT_DOT_ROWS)                                                                        \
            score_rows(loop, rows, w);                                                                                                               \
    }
#define VALUE_OF(name, loop, rows)                                                                                                                   \
    KVT_ONCE void value_##name##_##rows(const value_work *v)                                                                                         \
    {                                                                                                                                                \
        if ((rows)*weight_terms(bits_of(loop)) * KVT_DOT_SETS <= KVT_DOT_ROWS)                                                                       \
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
    KVT_ONCE void unpack_##name(bool are_keys, const value_work *v, uint32_t g, uint32_t n, uint8_t *to)                                             \
    {                                                                                                                                                \
        unpack_groups(loop, are_keys, v, g, n, to);                                                                                                  \
    }
WIDTH_OF(8, KVT_LOOP_8)
WIDTH_OF(6, KVT_LOOP_table_6)
WIDTH_OF(5, KVT_LOOP_table_5)
WIDTH_OF(4, KVT_LOOP_table_4)
WIDTH_OF(3, KVT_LOOP_table_3)
WIDTH_OF(2, KVT_LOOP_table_2)

#define LOOPS_OF(name)                                                                                                                               \
    {                                                                                                                                                \
        { score_##name##_1, score_##name##_2, score_##name##_4, score_##name##_8 }, { value_##name##_1, value_##name##_2, value_##name##_4 },        \
            unpack_##name                                                                                                                            \
    }
static const width_loops widths[KVT_LOOPS] = {
    [KVT_LOOP_8] = LOOPS_OF(8),       [KVT_LOOP_table_6] = LOOPS_OF(6), [KVT_LOOP_table_5] = LOOPS_OF(5),
    [KVT_LOOP_table_4] = LOOPS_OF(4), [KVT_LOOP_table_3] = LOOPS_OF(3), [KVT_LOOP_table_2] = LOOPS_OF(2),
};

/* What does not depend on the width: [by bytes]. */
#define ROWS_OF(rows, by_bytes)                                                                                                                      \
    KVT_ONCE void unpacked_##rows##_##by_bytes(uint32_t sets, const value_work *v, uint32_t g)                                                       \
    {                                                                                                                                                \
        const uint32_t sums = (rows)*terms_of(by_bytes);                                                                                             \
        if (sums * KVT_DOT_SETS > KVT_DOT_ROWS)                                                                                                      \
            return;                                                                                                                                  \
        if (KVT_DOT_SETS == 2 && sets == 2)                                                                                                          \
            unpacked_rows(by_bytes, KVT_DOT_SETS, rows, v, g);                                                                                       \
        else                                                                                                                                         \
            unpacked_rows(by_bytes, 1, rows, v, g);                                                                                                  \
    }
ROWS_OF(1, 0)
ROWS_OF(2, 0)
ROWS_OF(4, 0)
ROWS_OF(8, 0)
ROWS_OF(1, 1)
ROWS_OF(2, 1)
ROWS_OF(4, 1)
ROWS_OF(8, 1)
static unpacked_rows_fn *const unpacked_by[2][ROW_COUNTS] = { { unpacked_1_0, unpacked_2_0, unpacked_4_0, unpacked_8_0 },
                                                              { unpacked_1_1, unpacked_2_1, unpacked_4_1, unpacked_8_1 } };

/* How many of n rows at once: a power of two, `most` at most; its logarithm. */
KVT_LANES uint32_t rows_at_once(uint32_t n, uint32_t most)
{
    return most >= 8 && n >= 8 ? 3 : most >= 4 && n >= 4 ? 2 : most >= 2 && n >= 2 ? 1 : 0;
}

/* ---- pages ---- */

static void score(kvt_load_scales_fn *load, const kvt_page_side *page, const kvt_tile_spec *spec, const kvt_queries *q, float *logits)
{
    const uint32_t groups = spec->dim / 16, bits = spec->scheme->bits, blocks = blocks_in(groups, spec->block_groups);
    score_rows_fn *const *of_rows = widths[spec->scheme->loop].score;
    const uint32_t most = KVT_DOT_ROWS / KVT_DOT_SETS / query_terms(bits);
    _Alignas(64) float scale[KVT_MAX_GROUPS][KVT_PAGE_TOKENS];
    score_work w = {
        .q = q,
        .table = spec->scheme->table,
        .page = page,
        .scale = (const float(*)[KVT_PAGE_TOKENS])scale,
        .code_bytes = tile_code_bytes(bits, groups),
        .groups = groups,
        .per_dot = dot_groups(spec),
        .per_block = spec->block_groups,
        .logits = logits,
    };
    fetch_scales(page, spec);
    /* Where all rows are met at once, all tiles are; otherwise some, which stay in L1. */
    const bool at_once = q->n == 1u << rows_at_once(q->n, most);
    const uint32_t step = tiles_at_once(bits, 1), first_tile = page->first_tile / step * step;
    const uint32_t end_tile = first_tile + (page->end_tile - first_tile + step - 1) / step * step;
    load_scales_of_tiles(load, page, first_tile, end_tile, spec, 0, blocks, scale[0]);
    for (w.first_tile = first_tile; w.first_tile < end_tile; w.first_tile = w.end_tile) {
        w.end_tile = at_once ? end_tile : w.first_tile + step;
        w.ahead = page->ahead;
        for (uint32_t n = w.row = 0; w.row < q->n; w.row += 1u << n, w.ahead = page->codes) {
            n = rows_at_once(q->n - w.row, most);
            of_rows[n](&w);
        }
    }
}

/* Values of blocks b .. b+n-1, for all rows of a lot. */
KVT_LANES void value_blocks(bool are_keys, const kvt_tile_spec *spec, const value_work *all, const page_scales *scales, uint32_t b, uint32_t n)
{
    const uint32_t per_block = spec->block_groups, bits = spec->scheme->bits;
    const uint32_t most = KVT_DOT_ROWS / KVT_DOT_SETS / weight_terms(bits), log = rows_at_once(all->lot_rows, most);
    const width_loops *loops = &widths[spec->scheme->loop];
    _Alignas(64) uint8_t unpacked[PAGE_TILES * 2 * LINES_BYTES];
    value_work v = *all;
    v.signs = scales->signs + b;
    v.begin = b * per_block;
    v.end = v.groups - v.begin < n * per_block ? v.groups : v.begin + n * per_block;
    v.unpacked = unpacked;
    const bool are_sets = KVT_DOT_SETS == 1 || (per_block > 1 && (v.end - v.begin) % sets_at_once(v.lot_rows * weight_terms(bits)) == 0);
    if (!are_keys && log < DIRECT_COUNTS && v.lot_rows == 1u << log && are_sets) {
        loops->value[log](&v);
        return;
    }
    for (uint32_t g = v.begin, sets; g < v.end; g += sets) {
        sets = KVT_DOT_SETS == 2 && per_block > 1 && g + 1 < v.end ? 2 : 1;
        loops->unpack(are_keys, &v, g, sets, unpacked);
        v.row = 0;
        for (uint32_t i; v.row < v.lot_rows; v.row += 1u << i) {
            i = rows_at_once(v.lot_rows - v.row, most);
            unpacked_by[weighs_by_bytes(bits)][i](sets, &v, g);
        }
    }
}

/* NaNs for all channels of spoilt blocks. */
KVT_ONCE void spoil(const kvt_tile_spec *spec, const kvt_weighted *w, uint64_t blocks)
{
    for (uint32_t g = 0; g < spec->dim / 16; g++)
        if (blocks >> g / spec->block_groups & 1)
            for (uint32_t r = 0; r < w->rows; r++)
                f32x16_store(w->sums + r * w->sum_stride + (size_t)16 * g, f32x16_set1((float)NAN));
}

KVT_ONCE void value_page(bool are_keys, kvt_load_scales_fn *load, const kvt_tile_spec *spec, const kvt_weighted *w)
{
    const uint32_t groups = spec->dim / 16, bits = spec->scheme->bits, blocks = blocks_in(groups, spec->block_groups);
    const bool by_bytes = weighs_by_bytes(bits), is_precise = by_bytes && w->is_precise;
    _Alignas(64) page_scales scales;
    _Alignas(64) lot rows;
    value_work v = { .w = w,
                     .table = spec->scheme->table,
                     .lot = &rows,
                     .tile_bytes = tile_code_bytes(bits, groups),
                     .groups = groups,
                     .block_shift = (uint32_t)__builtin_ctz(spec->block_groups) };
    load_page_scales(load, &scales, w, spec);
    for (; v.lot_row < w->rows; v.lot_row += v.lot_rows) {
        v.lot_rows = w->rows - v.lot_row < LOT_ROWS ? w->rows - v.lot_row : LOT_ROWS;
        scale_weights(&rows, w, &scales, !by_bytes ? KVT_WEIGHT_UNIT : is_precise ? 255 * 128.0f : 255.0f, v.lot_row, v.lot_rows);
        for (uint32_t part = is_precise ? UPPER_BYTE : WHOLE; part <= (is_precise ? LOWER_BITS : WHOLE); part++) {
            if (part != WHOLE)
                scale_units(&rows, v.lot_rows, part == UPPER_BYTE ? 0x1p7f : 0x1p-7f);
            const uint32_t at_once = LOT_CHUNKS / v.lot_rows;
            for (uint32_t b = 0; b < blocks; b += at_once) {
                const uint32_t n = blocks - b < at_once ? blocks - b : at_once;
                if (by_bytes)
                    make_bytes(&rows, &scales, (weight_part)part, v.lot_rows, b, n);
                else
                    make_words(&rows, &scales, v.lot_rows, b, n);
                value_blocks(are_keys, spec, &v, &scales, b, n);
            }
        }
    }
    if (scales.spoilt)
        spoil(spec, w, scales.spoilt);
}
static void value(kvt_load_scales_fn *load, const kvt_tile_spec *spec, const kvt_weighted *w)
{
    fetch_scales(w->page, spec);
    value_page(false, load, spec, w);
}
static void value_keys(kvt_load_scales_fn *load, const kvt_tile_spec *spec, const kvt_weighted *w)
{
    value_page(true, load, spec, w);
}

extern const kvt_loops KVT_EXPORT(dots);
const kvt_loops KVT_EXPORT(dots) = { .prepare = prepare, .score = score, .value = { value_keys, value }, .joins_rows = JOINS_ROWS };
