/* SPDX-License-Identifier: MIT */
/* Attention's loops over codes that are numbers, once for each format (docs/formats.md, section 9): logits from keys, weighted sums from values.
 *
 * They multiply floats, in order of channels (K) or tokens (V); the 1, 2 or 4 numbers of a cell have sums of their own, which are added up at the
 * end. So a line is taken as it lies in memory: so many *parts* of 16 numbers, and a row's numbers for one cell, repeated, are what each of them is
 * multiplied with. */
#ifndef KVT_FLOATS_H
#define KVT_FLOATS_H

#include "kernels/lanes.h"

enum {
    MOST_PARTS = 4,
    FLOAT_ROWS = KVT_FLOAT_SUMS < 4 ? KVT_FLOAT_SUMS : 4,
    TURNED_ROWS = 32,    /* for which a group of keys that are values is turned once */
    BLOCKS_AT_A_TIME = 4 /* whose scales are loaded at once */
};

/* A format: constants, where it is one of the loops. */
typedef struct float_format {
    uint32_t bits;
    bool has_scales;
    /* Parts first .. first+n-1 of a line */
    void (*load)(const uint8_t *line, uint32_t first, uint32_t n, f32x16 part[MOST_PARTS]);
} float_format;

KVT_LANES uint32_t parts_of(const float_format *f)
{
    return 32 / f->bits;
}
/* Of a group */
KVT_LANES uint32_t lines_of(const float_format *f)
{
    return f->bits / 2;
}

/* What a line's parts are multiplied with. */
KVT_LANES f32x16 load_cell(uint32_t parts, const float *x)
{
    return parts == 4 ? f32x16_load_quad(x) : parts == 2 ? f32x16_load_pair(x) : f32x16_set1(*x);
}

/* As many parts at once as there are registers for the sums of. */
KVT_LANES uint32_t parts_at_once(uint32_t parts, uint32_t rows)
{
    const uint32_t room = rows < KVT_FLOAT_SUMS ? KVT_FLOAT_SUMS / rows : 1;
    return room < parts ? room : parts;
}

/* All parts' sums to those of 16 tokens or channels. */
KVT_LANES f32x16 sum_of_parts(uint32_t parts, const f32x16 part[MOST_PARTS])
{
    if (parts == 1)
        return part[0];
    if (parts == 2)
        return f32x16_add_neighbours(part[0], part[1]);
    return f32x16_add_neighbours(f32x16_add_neighbours(part[0], part[1]), f32x16_add_neighbours(part[2], part[3]));
}

KVT_LANES void clear_parts(uint32_t rows, uint32_t first, uint32_t n, f32x16 sum[FLOAT_ROWS][MOST_PARTS])
{
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        sum[r][i] = f32x16_set1(0);
}

/* To memory, if there are others, which need the registers. */
KVT_LANES void copy_parts(uint32_t parts, uint32_t rows, uint32_t first, uint32_t n, f32x16 to[FLOAT_ROWS][MOST_PARTS],
                          f32x16 from[FLOAT_ROWS][MOST_PARTS])
{
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        to[r][i] = from[r][i];
    if (n < parts)
        __asm__ volatile("" : : "r"(to) : "memory");
}

/* Parts first .. first+n-1 of a line to rows' sums; row r's cell is at x + r * stride. */
KVT_LANES void add_parts(uint32_t parts, uint32_t rows, uint32_t first, uint32_t n, f32x16 sum[FLOAT_ROWS][MOST_PARTS], const f32x16 part[MOST_PARTS],
                         const float *x, size_t stride)
{
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++) {
        const f32x16 cell = load_cell(parts, x + r * stride);
        KVT_FOR_ROWS
        for (uint32_t i = first; i < first + n; i++)
            sum[r][i] = f32x16_fma(part[i], cell, sum[r][i]);
    }
}

/* How many of n rows at once: a power of two; its logarithm. */
KVT_LANES uint32_t float_rows_at_once(uint32_t n)
{
    return FLOAT_ROWS >= 4 && n >= 4 ? 2 : FLOAT_ROWS >= 2 && n >= 2 ? 1 : 0;
}

/* ---- K ---- */

/* A tile, and the rows that meet it: `row` is the first. Scales are 16 floats for each block. */
typedef struct score_work {
    const kvt_queries *q;
    const uint8_t *codes;
    const float *scale;
    const uint8_t *ahead; /* the same tile of the next page; NULL: it has been fetched */
    uint32_t groups, per_sum;
    uint32_t row;
    float *logits;
} score_work;

/* Lines begin .. end-1 of a tile of keys. */
KVT_LANES void add_keys(const float_format *f, uint32_t rows, const uint8_t *codes, uint32_t begin, uint32_t end, const float *x, size_t dim,
                        f32x16 sum[FLOAT_ROWS][MOST_PARTS], const uint8_t *ahead)
{
    const uint32_t parts = parts_of(f), n = parts_at_once(parts, rows);
    KVT_FOR_ROWS
    for (uint32_t first = 0; first < parts; first += n) {
        f32x16 s[FLOAT_ROWS][MOST_PARTS], part[MOST_PARTS];
        clear_parts(rows, first, n, s);
        for (uint32_t line = begin; line < end; line++) {
            if (first == 0 && ahead)
                prefetch_far(ahead, (size_t)line * 64);
            f->load(codes + (size_t)line * 64, first, n, part);
            add_parts(parts, rows, first, n, s, part, x + (size_t)line * parts, dim);
        }
        copy_parts(parts, rows, first, n, sum, s);
    }
}

KVT_LANES void score_float_rows(const float_format *f, uint32_t rows, const score_work *w)
{
    const uint32_t parts = parts_of(f), groups = w->groups, dim = groups * 16;
    f32x16 total[FLOAT_ROWS];
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        total[r] = f32x16_set1(0);
    for (uint32_t begin = 0, b = 0; begin < groups; begin += w->per_sum, b++) {
        const uint32_t end = groups - begin < w->per_sum ? groups : begin + w->per_sum;
        f32x16 sum[FLOAT_ROWS][MOST_PARTS];
        clear_parts(rows, 0, parts, sum); /* gcc does not see that all are set */
        add_keys(f, rows, w->codes, begin * lines_of(f), end * lines_of(f), w->q->x + (size_t)w->row * dim, dim, sum, w->ahead);
        const f32x16 s = f->has_scales ? without_least(f32x16_load(w->scale + (size_t)b * KVT_TILE_TOKENS)) : f32x16_set1(1);
        KVT_FOR_ROWS
        for (uint32_t r = 0; r < rows; r++) {
            f32x16 all = sum_of_parts(parts, sum[r]);
            if (f->has_scales)
                all = without_small(f32x16_mul(all, s));
            total[r] = f32x16_add(total[r], all);
        }
    }
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        f32x16_store(w->logits + (size_t)(w->row + r) * KVT_PAGE_TOKENS, total[r]);
}

enum { ROW_COUNTS = 3 };
typedef void score_rows_fn(const score_work *w);

KVT_LANES void score_float_page(score_rows_fn *const *of_rows, kvt_load_scales_fn *load, const kvt_page_side *page, const kvt_tile_spec *spec,
                                const kvt_queries *q, float *logits)
{
    const uint32_t groups = spec->dim / 16;
    for (uint32_t tile = page->first_tile; tile < page->end_tile; tile++) {
        float scale[KVT_MAX_GROUPS * KVT_TILE_TOKENS];
        if (load)
            load(page->scales + tile * tile_scale_bytes(groups, spec), 0, 1, 0, blocks_in(groups, spec->block_groups), spec, scale, KVT_TILE_TOKENS);
        score_work w = {
            .q = q,
            .codes = page->codes + tile * tile_code_bytes(spec->scheme->bits, groups),
            .scale = scale,
            .ahead = (const uint8_t *)((uintptr_t)page->ahead + tile * tile_code_bytes(spec->scheme->bits, groups)),
            .groups = groups,
            .per_sum = spec->block_groups < groups ? spec->block_groups : groups,
            .logits = logits + (size_t)tile * KVT_TILE_TOKENS,
        };
        for (uint32_t n; w.row < q->n; w.row += 1u << n) {
            n = float_rows_at_once(q->n - w.row);
            of_rows[n](&w);
            w.ahead = NULL;
        }
    }
}

/* ---- V ---- */

/* A group of a page's values, and the rows whose sums they go to: `row` is the first. `scaled`: their weights times the block's scales. */
typedef struct value_work {
    const kvt_weighted *w;
    const uint8_t *const *codes; /* of each tile: the group's lines */
    const float *scaled;
    size_t stride;
    const uint8_t *ahead; /* the group's lines of the next page's first tile; NULL: they have been fetched */
    size_t tile_bytes;
    uint32_t row, g;
} value_work;

KVT_LANES void value_float_rows(const float_format *f, uint32_t rows, const value_work *v)
{
    const uint32_t parts = parts_of(f), lines = lines_of(f), n = parts_at_once(parts, rows);
    const kvt_weighted *w = v->w;
    f32x16 sum[FLOAT_ROWS][MOST_PARTS];
    clear_parts(rows, 0, parts, sum);
    KVT_FOR_ROWS
    for (uint32_t first = 0; first < parts; first += n) {
        f32x16 s[FLOAT_ROWS][MOST_PARTS], part[MOST_PARTS];
        clear_parts(rows, first, n, s);
        for (uint32_t tile = w->page->first_tile; tile < w->page->end_tile; tile++)
            for (uint32_t line = 0; line < lines; line++) {
                if (first == 0 && v->ahead)
                    prefetch_far(v->ahead, tile * v->tile_bytes + (size_t)line * 64);
                f->load(v->codes[tile] + (size_t)line * 64, first, n, part);
                add_parts(parts, rows, first, n, s, part, v->scaled + (tile * lines + line) * parts, v->stride);
            }
        copy_parts(parts, rows, first, n, sum, s);
    }
    float *to = w->sums + v->row * w->sum_stride + 16 * v->g;
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++, to += w->sum_stride)
        f32x16_store(to, f32x16_add(f32x16_load(to), sum_of_parts(parts, sum[r])));
}

typedef void value_rows_fn(const value_work *v);

/* A group's lines of a tile with zeros for tokens of the page that are not first .. end-1: they are zeros in every format. */
KVT_LANES void mask_lines(uint32_t bits, uint32_t tile, uint32_t first, uint32_t end, const uint8_t *codes, uint8_t *to)
{
    const uint32_t lines = bits / 2, per_line = 32 / bits; /* tokens */
    for (uint32_t line = 0; line < lines; line++) {
        uint32_t mask = 0;
        for (uint32_t i = 0; i < per_line; i++) {
            const uint32_t token = (tile * lines + line) * per_line + i;
            if (token >= first && token < end)
                mask |= (bits == 32 ? UINT32_MAX : (1u << bits % 32) - 1) << bits * i;
        }
        i32x16_store(to + (size_t)line * 64, i32x16_and(i32x16_load(codes + (size_t)line * 64), i32x16_set1(mask)));
    }
}

/* 16 rows of 16 lanes. */
KVT_LANES void turn_lanes(i32x16 row[16])
{
    for (int q = 0; q < 4; q++)
        quad32_transpose(row + 4 * q); /* row[4q + c]: lane k of quarter l was lane 4l + c of row 4q + k */
    for (int c = 0; c < 4; c++) {
        u8x64 part[4];
        for (int q = 0; q < 4; q++)
            part[q] = u8x64_from_i32(row[4 * q + c]);
        u8x64_swap_quarters(part);
        for (int l = 0; l < 4; l++)
            row[4 * l + c] = i32x16_from_u8(part[l]);
    }
}

/* A group of a K tile as the V tile of the same numbers has it. */
KVT_LANES void turn_tile(uint32_t bits, const uint8_t *from, uint8_t *to)
{
    if (bits == 8) {
        u8x64 line[4];
        for (int i = 0; i < 4; i++)
            line[i] = u8x64_swap_cells(u8x64_load(from + (size_t)i * 64));
        u8x64_swap_quarters(line);
        for (int i = 0; i < 4; i++)
            u8x64_store(to + (size_t)i * 64, line[i]);
        return;
    }
    i32x16 row[16];
    for (int i = 0; i < 16; i++) {
        const i32x16 line = i32x16_load(from + (size_t)(bits == 32 ? i : i / 2) * 64);
        row[i] = bits == 32 ? line : i % 2 ? i32x16_shr(line, 16) : i32x16_and(line, i32x16_set1(0xffff));
    }
    turn_lanes(row);
    for (int i = 0; i < (bits == 32 ? 16 : 8); i++)
        i32x16_store(to + (size_t)i * 64, bits == 32 ? row[i] : i32x16_or(row[2 * i % 16], i32x16_shl(row[(2 * i + 1) % 16], 16)));
}

/* Scales of n blocks of a page from b on, to [block][token of the page]; zeros where tokens are not first .. end-1. */
KVT_LANES void load_float_scales(kvt_load_scales_fn *load, float scale[][KVT_PAGE_TOKENS], const kvt_weighted *w, const kvt_tile_spec *spec,
                                 uint32_t b, uint32_t n)
{
    load_scales_of_tiles(load, w->page, w->page->first_tile, w->page->end_tile, spec, b, n, scale[0]);
    if (w->first == 0 && w->end == KVT_PAGE_TOKENS)
        return;
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = w->page->first_tile; i < w->page->end_tile; i++)
            f32x16_store(scale[k] + 16 * i, lanes_between(f32x16_load(scale[k] + 16 * i), 16 * i, w->first, w->end, f32x16_set1(0)));
}

/* Weights of some rows times the scales of a block: to `products`, where there are scales. Returns where they are. */
KVT_LANES const float *scaled_weights(bool has_scales, uint32_t rows, const kvt_weighted *w, const float *scale, uint32_t row,
                                      float products[][KVT_PAGE_TOKENS])
{
    const float *weights = w->weights + (size_t)row * KVT_PAGE_TOKENS;
    if (!has_scales)
        return weights;
    for (uint32_t i = w->page->first_tile; i < w->page->end_tile; i++) {
        const f32x16 s = without_least(f32x16_load(scale + 16 * i));
        for (uint32_t r = 0; r < rows; r++)
            f32x16_store(products[r] + 16 * i, f32x16_mul(f32x16_load(weights + (size_t)r * KVT_PAGE_TOKENS + 16 * i), s));
    }
    return products[0];
}

/* What a format has copies of. */
typedef struct format_loops {
    value_rows_fn *value[ROW_COUNTS];
    void (*mask)(uint32_t tile, uint32_t first, uint32_t end, const uint8_t *codes, uint8_t *to);
    void (*turn)(const uint8_t *from, uint8_t *to); /* a group of a tile */
} format_loops;

/* A group's lines of each tile: where they are, or, if they are keys or some of their tokens do not count, a copy. */
KVT_LANES void find_lines(const format_loops *loops, const kvt_weighted *w, size_t group_bytes, uint32_t groups, uint32_t g, bool are_keys,
                          uint8_t *copy, const uint8_t *codes[PAGE_TILES])
{
    for (uint32_t i = w->page->first_tile; i < w->page->end_tile; i++, copy += group_bytes) {
        codes[i] = w->page->codes + i * groups * group_bytes + g * group_bytes;
        if (are_keys) {
            loops->turn(codes[i], copy);
            codes[i] = copy;
        }
        if (w->first > i * KVT_TILE_TOKENS || w->end < (i + 1) * KVT_TILE_TOKENS) {
            loops->mask(i, w->first, w->end, codes[i], copy);
            codes[i] = copy;
        }
    }
}

static void value_rows_of_page(const format_loops *loops, bool has_scales, const kvt_tile_spec *spec, const kvt_weighted *w,
                               float scale[][KVT_PAGE_TOKENS], uint32_t b, uint32_t n_blocks, bool are_keys)
{
    const uint32_t groups = spec->dim / 16;
    const size_t group_bytes = (size_t)spec->scheme->bits * 32; /* of a tile */
    for (uint32_t begin = 0, some; begin < w->rows; begin += some) {
        /* Keys are turned for as many rows as there is room for the weights of. */
        some = !are_keys ? 1u << float_rows_at_once(w->rows - begin) : w->rows - begin < TURNED_ROWS ? w->rows - begin : TURNED_ROWS;
        for (uint32_t k = 0; k < n_blocks; k++) {
            float products[TURNED_ROWS][KVT_PAGE_TOKENS];
            const float *scaled = scaled_weights(has_scales, some, w, scale[k], begin, products);
            for (uint32_t g = (b + k) * spec->block_groups; g < groups && g < (b + k + 1) * spec->block_groups; g++) {
                uint8_t copy[KVT_PAGE_TOKENS * 16 * 4];
                const uint8_t *codes[PAGE_TILES] = { NULL };
                find_lines(loops, w, group_bytes, groups, g, are_keys, copy, codes);
                value_work v = { .w = w, .codes = codes, .stride = KVT_PAGE_TOKENS, .row = begin, .g = g };
                v.tile_bytes = tile_code_bytes(spec->scheme->bits, groups);
                if (begin == 0 && !are_keys) /* keys were fetched as such */
                    v.ahead = (const uint8_t *)((uintptr_t)w->page->ahead + g * group_bytes);
                for (uint32_t n; v.row < begin + some; v.row += 1u << n) {
                    n = float_rows_at_once(begin + some - v.row);
                    v.scaled = scaled + (v.row - begin) * v.stride;
                    loops->value[n](&v);
                    v.ahead = NULL;
                }
            }
        }
    }
}

KVT_LANES void value_float_page(const format_loops *loops, bool has_scales, kvt_load_scales_fn *load, const kvt_tile_spec *spec,
                                const kvt_weighted *w, bool are_keys)
{
    const uint32_t groups = spec->dim / 16, blocks = blocks_in(groups, spec->block_groups);
    for (uint32_t b = 0; b < blocks; b += BLOCKS_AT_A_TIME) {
        const uint32_t n = blocks - b < BLOCKS_AT_A_TIME ? blocks - b : BLOCKS_AT_A_TIME;
        float scale[BLOCKS_AT_A_TIME][KVT_PAGE_TOKENS];
        if (has_scales)
            load_float_scales(load, scale, w, spec, b, n);
        value_rows_of_page(loops, has_scales, spec, w, scale, b, n, are_keys);
    }
}

/* ---- a copy for each format ---- */

#define FLOAT_ROWS_OF(name, format, rows)                                                                                                            \
    KVT_ONCE void score_##name##_##rows(const score_work *w)                                                                                         \
    {                                                                                                                                                \
        if ((rows) <= FLOAT_ROWS)                                                                                                                    \
            score_float_rows(format, rows, w);                                                                                                       \
    }                                                                                                                                                \
    KVT_ONCE void value_##name##_##rows(const value_work *v)                                                                                         \
    {                                                                                                                                                \
        if ((rows) <= FLOAT_ROWS)                                                                                                                    \
            value_float_rows(format, rows, v);                                                                                                       \
    }

#define FLOAT_LOOPS(name, format)                                                                                                                    \
    FLOAT_ROWS_OF(name, format, 1)                                                                                                                   \
    FLOAT_ROWS_OF(name, format, 2)                                                                                                                   \
    FLOAT_ROWS_OF(name, format, 4)                                                                                                                   \
    static void mask_##name(uint32_t tile, uint32_t first, uint32_t end, const uint8_t *codes, uint8_t *to)                                          \
    {                                                                                                                                                \
        mask_lines((format)->bits, tile, first, end, codes, to);                                                                                     \
    }                                                                                                                                                \
    static void turn_##name(const uint8_t *from, uint8_t *to)                                                                                        \
    {                                                                                                                                                \
        turn_tile((format)->bits, from, to);                                                                                                         \
    }                                                                                                                                                \
    static score_rows_fn *const score_rows_##name[ROW_COUNTS] = { score_##name##_1, score_##name##_2, score_##name##_4 };                            \
    static const format_loops loops_##name = { { value_##name##_1, value_##name##_2, value_##name##_4 }, mask_##name, turn_##name };                 \
    static void score_##name(kvt_load_scales_fn *load, const kvt_page_side *page, const kvt_tile_spec *spec, const kvt_queries *q, float *logits)    \
    {                                                                                                                                                \
        score_float_page(score_rows_##name, load, page, spec, q, logits);                                                                            \
    }                                                                                                                                                \
    static void value_##name(kvt_load_scales_fn *load, const kvt_tile_spec *spec, const kvt_weighted *w)                                             \
    {                                                                                                                                                \
        value_float_page(&loops_##name, (format)->has_scales, load, spec, w, false);                                                                 \
    }                                                                                                                                                \
    static void value_keys_##name(kvt_load_scales_fn *load, const kvt_tile_spec *spec, const kvt_weighted *w)                                        \
    {                                                                                                                                                \
        value_float_page(&loops_##name, (format)->has_scales, load, spec, w, true);                                                                  \
    }                                                                                                                                                \
    extern const kvt_loops KVT_EXPORT(loops_##name);                                                                                                 \
    const kvt_loops KVT_EXPORT(loops_##name) = {                                                                                                     \
        .score = score_##name,                                                                                                                       \
        .value = { value_keys_##name, value_##name },                                                                                                \
        .joins_rows = JOINS_ROWS,                                                                                                                    \
    };

#endif
