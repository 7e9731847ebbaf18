/* SPDX-License-Identifier: MIT */
#include "kernels/tile.h"

#include <string.h>

/* Rows of codes are made a slice of channels at a time, which stays in L1. Writing them, whole registers do not straddle its lines, which took up to
 * 3 %; reading is no faster for it, and sometimes slower. */
enum { SLICE_BYTES = 512 };

static uint32_t bytes_of_code(const kvt_scheme_code *scheme)
{
    return scheme->bits <= 8 ? 1 : scheme->bits / 8;
}

typedef struct slices {
    uint32_t code_bytes;
    uint32_t groups, step; /* of the tile, of a slice */
} slices;

static slices slices_of(const kvt_scheme_code *scheme, uint32_t dim)
{
    const uint32_t code_bytes = bytes_of_code(scheme);
    return (slices){ .code_bytes = code_bytes, .groups = dim / 16, .step = SLICE_BYTES / 16 / code_bytes };
}

static uint32_t end_of_slice(const slices *s, uint32_t begin)
{
    return s->groups - begin < s->step ? s->groups : begin + s->step;
}

static size_t stride_of(const slices *s, uint32_t begin, uint32_t end)
{
    return kvt_whole_lines((size_t)(end - begin) * 16 * s->code_bytes);
}

/* The scales of rows side by side. */
static bool choose_side_by_side(const kvt_tier_kernels *tier, const kvt_tile_spec *spec, kvt_dtype dtype, uint8_t *scales, const kvt_tile_rows *rows,
                                uint32_t quads, kvt_factors *factors)
{
    kvt_choose_fn *const of_scheme = spec->scheme->is_searched ? tier->search->choose : tier->coders[spec->scheme->coder]->choose;
    return of_scheme && of_scheme(spec, dtype, scales, rows, quads, factors);
}

/* Numbers that are stored as they are: rows are rows of codes. (A caller's, which are not padded: only whole registers of them may be packed.) */
static bool is_stored_as(const kvt_scheme_code *scheme, kvt_dtype dtype)
{
    return dtype == KVT_F32 ? scheme->coder == KVT_CODER_f32 : dtype == KVT_F16 ? scheme->coder == KVT_CODER_f16 : scheme->coder == KVT_CODER_bf16;
}

void kvt_tile_write(const kvt_tier_kernels *tier, kvt_side order, const kvt_tile_spec *spec, uint8_t *codes, uint8_t *scales, const uint8_t *rows,
                    ptrdiff_t row_stride, kvt_dtype dtype)
{
    kvt_tile_rows from;
    for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
        from.row[t] = rows + (ptrdiff_t)t * row_stride;
    _Alignas(64) kvt_factors factors;
    const bool has_nan = choose_side_by_side(tier, spec, dtype, scales, &from, 4, &factors);
    const slices s = slices_of(spec->scheme, spec->dim);
    _Alignas(64) uint8_t row_codes[KVT_TILE_TOKENS * SLICE_BYTES];
    for (uint32_t begin = 0; begin < s.groups; begin += s.step) {
        const uint32_t end = end_of_slice(&s, begin);
        const size_t stride = stride_of(&s, begin, end);
        tier->coders[spec->scheme->coder]->encode(spec, dtype, from.row, KVT_TILE_TOKENS, KVT_TILE_TOKENS * row_stride, begin, end, factors.r[0],
                                                  KVT_TILE_TOKENS, has_nan, row_codes, stride);
        tier->pack[spec->scheme->bits].tile[order](codes, s.groups, begin, end, row_codes, stride);
    }
}

/* ---- a few tokens ---- */

/* Scales that are searched for: from how many rows on it pays to do so side by side, though 4, 8 or 16 are paid for. */
enum { ROWS_SIDE_BY_SIDE = 3 };

static __attribute__((noinline)) void write_searched(const kvt_tier_kernels *tier, const kvt_tile_spec *spec, const kvt_place *places, uint32_t n,
                                                     kvt_pack_token_fn *pack)
{
    const uint32_t groups = spec->dim / 16, blocks = (groups + spec->block_groups - 1) >> __builtin_ctz(spec->block_groups);
    _Alignas(64) uint8_t row_codes[KVT_MAX_DIM];
    uint8_t scales[sizeof((kvt_factors *)0)->r / sizeof(float)];
    _Alignas(64) kvt_factors factors;
    const bool are_many = n >= ROWS_SIDE_BY_SIDE;
    bool has_nan = false;
    if (are_many) {
        kvt_tile_rows rows;
        for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
            rows.row[t] = places[t < n ? t : 0].row;
        has_nan = tier->search->choose(spec, KVT_F32, scales, &rows, (n + 3) / 4, &factors);
    }
    for (uint32_t t = 0; t < n; t++) {
        const kvt_place *at = &places[t];
        if (!are_many)
            has_nan = tier->search->choose_row(spec, KVT_F32, at->scales, at->row, at->token, factors.r[0]);
        for (uint32_t b = 0; are_many && b < blocks; b++)
            at->scales[(size_t)b * KVT_TILE_TOKENS + at->token] = scales[(size_t)b * KVT_TILE_TOKENS + t];
        tier->coders[spec->scheme->coder]->encode(spec, KVT_F32, &at->row, 1, 0, 0, groups, factors.r[0] + (are_many ? t : 0),
                                                  are_many ? KVT_TILE_TOKENS : 1, has_nan, row_codes, 0);
        pack(at->codes, groups, row_codes, at->token);
    }
}

/* Without scales: rows of codes are made, some at once, where the rows themselves are none, and packed. */
static __attribute__((noinline)) void write_unscaled(const kvt_tier_kernels *tier, kvt_side order, const kvt_tile_spec *spec, const kvt_place *places,
                                                     uint32_t n, kvt_dtype dtype, kvt_pack_token_fn *pack)
{
    enum { ROOM = KVT_TILE_TOKENS * SLICE_BYTES };
    const uint32_t groups = spec->dim / 16;
    if (is_stored_as(spec->scheme, dtype)) {
        for (uint32_t t = 0; t < n; t++)
            pack(places[t].codes, groups, places[t].row, places[t].token);
        return;
    }
    _Alignas(64) uint8_t row_codes[ROOM];
    const uint8_t *rows[KVT_TILE_TOKENS];
    const uint32_t stride = (uint32_t)kvt_whole_lines((size_t)spec->dim * bytes_of_code(spec->scheme));
    const uint32_t at_once = order == KVT_K || n == 1 ? 1 : ROOM / stride; /* K: stores to many lines go on while the next row is encoded */
    for (uint32_t t = 0; t < n; t++)
        rows[t] = places[t].row;
    for (uint32_t done = 0; done < n;) {
        const uint32_t count = n - done < at_once ? n - done : at_once;
        tier->coders[spec->scheme->coder]->encode(spec, dtype, rows + done, count, 0, 0, groups, NULL, 0, false, row_codes, stride);
        for (uint32_t t = 0; t < count; t++, done++)
            pack(places[done].codes, groups, row_codes + (size_t)t * stride, places[done].token);
    }
}

/* (The others need room for rows of codes, and registers: functions of their own, so that a coder which writes tokens itself is only jumped to.) */
void kvt_tile_write_tokens(const kvt_tier_kernels *tier, kvt_side order, const kvt_tile_spec *spec, const kvt_place *places, uint32_t n,
                           kvt_dtype dtype)
{
    const kvt_coder *coder = tier->coders[spec->scheme->coder];
    kvt_pack_token_fn *const pack = tier->pack[spec->scheme->bits].token[order];
    if (coder->write_tokens)
        coder->write_tokens(spec, dtype, places, n, pack);
    else if (spec->scheme->is_searched)
        write_searched(tier, spec, places, n, pack);
    else
        write_unscaled(tier, order, spec, places, n, dtype, pack);
}

/* ---- back ---- */

void kvt_tile_read(const kvt_tier_kernels *tier, kvt_side order, const kvt_tile_spec *spec, const uint8_t *codes, const uint8_t *scales,
                   uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t first, uint32_t count)
{
    const kvt_scheme_code *scheme = spec->scheme;
    const kvt_coder *coder = tier->coders[scheme->coder];
    const slices s = slices_of(scheme, spec->dim);
    const uint32_t first_quad = first / 4, end_quad = (first + count + 3) / 4;
    if (order == KVT_V && first % 4 == 0 && count % 4 == 0 && is_stored_as(scheme, dtype) && row_stride > 0) {
        tier->pack[scheme->bits].unpack[order](codes, s.groups, 0, s.groups, first_quad, end_quad, NULL, rows, (size_t)row_stride);
        return;
    }
    float scale[KVT_MAX_GROUPS * KVT_TILE_TOKENS];
    if (coder->load_scales)
        coder->load_scales(scales, 0, 1, 0, (s.groups + spec->block_groups - 1) >> __builtin_ctz(spec->block_groups), spec, scale, KVT_TILE_TOKENS);
    uint8_t row_codes[KVT_TILE_TOKENS * SLICE_BYTES];
    for (uint32_t begin = 0; begin < s.groups; begin += s.step) {
        const uint32_t end = end_of_slice(&s, begin);
        const size_t stride = stride_of(&s, begin, end);
        tier->pack[scheme->bits].unpack[order](codes, s.groups, begin, end, first_quad, end_quad, scheme->table, row_codes, stride);
        coder->decode(spec, dtype, row_codes + (first % 4) * stride, stride, count, begin, end, scale + first, rows, row_stride);
    }
}

/* ---- codes as they are ---- */

void kvt_tile_write_codes(const kvt_tier_kernels *tier, kvt_side order, const kvt_scheme_code *scheme, uint8_t *codes, uint32_t dim,
                          const uint8_t *rows, size_t row_stride)
{
    const uint32_t groups = (dim + 15) / 16;
    tier->pack[scheme->bits].tile[order](codes, groups, 0, groups, rows, row_stride);
}

void kvt_tile_read_codes(const kvt_tier_kernels *tier, kvt_side order, const kvt_scheme_code *scheme, const uint8_t *codes, uint32_t dim,
                         uint8_t *rows, size_t row_stride)
{
    const uint32_t groups = (dim + 15) / 16;
    tier->pack[scheme->bits].unpack[order](codes, groups, 0, groups, 0, KVT_TILE_TOKENS / 4, NULL, rows, row_stride);
}

/* ---- some tokens ---- */

/* Bits of each cell of a V line that hold the first `n` tokens of the tile. The line is the `line`-th of its group, and has `bits` of each code:
 * tokens side by side in bytes, the next four in higher bits. */
static uint32_t value_bits(uint32_t bits, uint32_t line, uint32_t n)
{
    uint32_t mask = 0;
    for (uint32_t at = 0; at < 32; at += bits) {
        const uint32_t token = line * (32 / bits) + (bits >= 8 ? at / bits : at % 8 / bits * 4 + at / 8);
        if (token % KVT_TILE_TOKENS < n) /* two groups share a line of a 1-bit plane */
            mask |= (bits == 32 ? UINT32_MAX : (1u << bits) - 1) << at;
    }
    return mask;
}

static void copy_lines(kvt_side order, uint32_t bits, size_t bytes, const uint8_t *from, uint32_t first, uint32_t end, uint8_t *to)
{
    const uint32_t lines = bits < 2 ? 1 : bits / 2; /* in a group */
    uint32_t line_masks[16], cell_masks[16];
    for (uint32_t i = 0; i < lines; i++)
        line_masks[i] = order == KVT_V ? value_bits(bits, i, end) & ~value_bits(bits, i, first) : UINT32_MAX;
    for (uint32_t cell = 0; cell < 16; cell++)
        cell_masks[cell] = order == KVT_V || (cell >= first && cell < end) ? UINT32_MAX : 0;
    for (uint32_t line = 0; line < bytes / 64; line++) {
        uint32_t cells[16];
        memcpy(cells, from + (size_t)line * 64, 64);
        for (uint32_t i = 0; i < 16; i++)
            cells[i] &= cell_masks[i] & line_masks[line % lines];
        memcpy(to + (size_t)line * 64, cells, 64);
    }
}

void kvt_tile_copy_tokens(kvt_side order, const kvt_tile_spec *spec, const uint8_t *codes, const uint8_t *scales, uint32_t first, uint32_t end,
                          uint8_t *code_copy, uint8_t *scale_copy)
{
    const uint32_t bits = spec->scheme->bits, groups = spec->dim / 16;
    const uint32_t lower = KVT_LOWER_BITS(bits);
    const size_t lower_bytes = (size_t)groups * 32 * lower, upper_bytes = kvt_whole_lines((size_t)groups * 32 * (bits - lower));
    if (first >= end) {
        memset(code_copy, 0, lower_bytes + upper_bytes);
    } else if (end - first == KVT_TILE_TOKENS) {
        memcpy(code_copy, codes, lower_bytes + upper_bytes);
    } else {
        copy_lines(order, lower, lower_bytes, codes, first, end, code_copy);
        if (upper_bytes)
            copy_lines(order, bits - lower, upper_bytes, codes + lower_bytes, first, end, code_copy + lower_bytes);
    }
    const uint32_t blocks = (groups + spec->block_groups - 1) >> __builtin_ctz(spec->block_groups), bytes = spec->scale_bytes;
    memset(scale_copy, 0, (size_t)blocks * KVT_TILE_TOKENS * bytes);
    for (uint32_t b = 0; first < end && b < blocks; b++) {
        const size_t at = ((size_t)b * KVT_TILE_TOKENS + first) * bytes;
        memcpy(scale_copy + at, scales + at, (size_t)(end - first) * bytes);
    }
}
