/* The loops of a scheme: rows in and out of one tile. Included at the end of a scheme_*.c, which has defined SCHEME and
 *
 *   i32x16 encode(f32x16 x, f32x16 r)     codes of 16 channels of one row; r is what scale_of gave for the row's block
 *   f32x16 decode(i32x16 code, f32x16 s)  and back; codes arrive zero-extended, or sign-extended where CODES_SIGNED is defined
 *
 * for a scheme with scales also SCHEME_HAS_SCALES and
 *
 *   i32x16 magnitude(f32x16 x)            what the largest of a block is looked for by, as unsigned integers
 *   block_scale scale_of(i32x16 largest)  16 blocks at once, lane = token
 *
 * and for one without, where rows of the same number format are copied,
 *
 *   SCHEME_DTYPE                          that format
 *
 * A tile is worked on in pieces of four tokens (a quad) times 16 channels (a group), lane = channel. docs/formats.md says where every code goes;
 * arch/VEC.md how the quad functions get it there. */

#ifdef CODES_SIGNED
#define quad8_pack   quad8_pack_s8
#define quad8_unpack quad8_unpack_s8
#else
#define quad8_pack   quad8_pack_u8
#define quad8_unpack quad8_unpack_u8
#endif

#ifndef SCHEME_DTYPE
#define SCHEME_DTYPE 0 /* no dtype */
#endif

/* Four copies of a quad's code gain nothing and cost the instruction cache. */
#if defined(__clang__)
#define KVT_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define KVT_ROLLED _Pragma("GCC unroll 1")
#endif

enum {
    BITS = KVT_JOIN(KVT_BITS_, SCHEME),
    SCALE_BYTES = KVT_JOIN(KVT_SCALE_BYTES_, SCHEME),
    BLOCK_GROUPS = KVT_JOIN(KVT_BLOCK_GROUPS_, SCHEME),
    GROUP_LINES = BITS / 2,               /* of 16 tokens x 16 channels */
    QUAD_LINES = BITS < 8 ? 1 : BITS / 8, /* of 8-, 16- or 32-bit codes of four tokens x 16 channels; 4-bit codes are joined later */
    CELL_TOKENS = 32 / BITS               /* V: tokens in one cell */
};

/* A scheme without scales has these two only so that the compiler can see them not being used. */
#ifndef SCHEME_HAS_SCALES
KVT_LANES i32x16 magnitude(f32x16 x)
{
    return i32x16_from_f32_bits(x);
}
KVT_LANES block_scale scale_of(i32x16 largest)
{
    return (block_scale){ .scale = f32x16_from_bits(largest), .r = f32x16_set1(0) };
}
#endif

KVT_LANES uint32_t element_bytes(kvt_dtype dtype)
{
    return dtype == KVT_F32 ? 4 : 2;
}

/* ---- codes of a quad to lines and back: lines[c][q], c-th of the quad's lines ----
 *
 * K: each line has the quad's four tokens in every quarter of 16 bytes, so that swapping quarters between the four quads of a tile makes K lines.
 * V: the lines are V lines already.
 *
 * (c % QUAD_LINES is c wherever the code runs; it keeps indices in range in branches that are dead for this BITS.) */

KVT_LANES void lines_from_quad(kvt_side side, i32x16 code[4], u8x64 lines[QUAD_LINES][4], uint32_t q)
{
    if (BITS == 32) {
        if (side == KVT_K)
            quad32_transpose(code);
        for (int c = 0; c < 4; c++)
            lines[c % QUAD_LINES][q] = u8x64_from_i32(code[c]);
    } else if (BITS == 16 && side == KVT_K) {
        u8x64 half[2];
        quad16_pack(code, half);
        for (int c = 0; c < 2; c++)
            lines[c % QUAD_LINES][q] = half[c];
    } else if (BITS == 16) {
        for (int c = 0; c < 2; c++)
            lines[c % QUAD_LINES][q] = u8x64_from_i32(i32x16_or(code[2 * c], i32x16_shl(code[2 * c + 1], 16)));
    } else {
        const u8x64 packed = quad8_pack(code);
        lines[0][q] = side == KVT_K ? packed : u8x64_swap_cells(packed);
    }
}

KVT_LANES void quad_from_lines(kvt_side side, u8x64 lines[QUAD_LINES][4], uint32_t q, i32x16 code[4])
{
    if (BITS == 32) {
        for (int c = 0; c < 4; c++)
            code[c] = i32x16_from_u8(lines[c % QUAD_LINES][q]);
        if (side == KVT_K)
            quad32_transpose(code);
    } else if (BITS == 16 && side == KVT_K) {
        const u8x64 half[2] = { lines[0][q], lines[1 % QUAD_LINES][q] };
        quad16_unpack(half, code);
    } else if (BITS == 16) {
        for (int c = 0; c < 2; c++) {
            const i32x16 both = i32x16_from_u8(lines[c % QUAD_LINES][q]);
            code[2 * c] = i32x16_and(both, i32x16_set1(0xffff));
            code[2 * c + 1] = i32x16_shr(both, 16);
        }
    } else {
        quad8_unpack(side == KVT_K ? lines[0][q] : u8x64_swap_cells(lines[0][q]), code);
    }
}

/* ---- write ---- */

KVT_LANES f32x16 load_row(const uint8_t *p, kvt_dtype dtype)
{
    if (dtype == KVT_F32)
        return f32x16_load(p);
    if (dtype == KVT_F16)
        return f32x16_load_f16(p);
    return f32x16_from_bits(widen_bf16(i32x16_load_u16(p)));
}

KVT_LANES i32x16 load_codes(const uint8_t *p, kvt_dtype dtype, float r)
{
    if (dtype == SCHEME_DTYPE)
        return BITS == 32 ? i32x16_load(p) : i32x16_load_u16(p);
    return encode(load_row(p, dtype), f32x16_set1(r));
}

/* The bits of a K line, or of a cell in each V line of a group, that belong to some of a tile's tokens. */
typedef struct token_bits {
    uint32_t k[KVT_TILE_TOKENS]; /* per cell */
    uint32_t v[KVT_TILE_TOKENS]; /* per line */
} token_bits;

KVT_LANES token_bits token_bits_of(uint32_t first, uint32_t count)
{
    token_bits bits = { { 0 }, { 0 } };
    for (uint32_t t = first; t < first + count; t++) {
        const uint32_t code = BITS == 32 ? UINT32_MAX : (UINT32_C(1) << BITS % 32) - 1, place = t % CELL_TOKENS;
        /* A cell of 4-bit codes has four low nibbles before the high ones. */
        const uint32_t shift = BITS == 4 ? place % 4 * 8 + place / 4 * 4 : place * BITS;
        bits.k[t] = UINT32_MAX;
        bits.v[t / CELL_TOKENS] |= code << shift;
    }
    return bits;
}

KVT_LANES void store_group(kvt_side side, uint8_t *to, u8x64 lines[QUAD_LINES][4], const token_bits *changed)
{
    u8x64 line[GROUP_LINES < 4 ? 4 : GROUP_LINES];
    for (int c = 0; c < QUAD_LINES; c++) {
        if (side == KVT_K)
            u8x64_swap_quarters(lines[c]);
        for (int i = 0; i < 4; i++)
            line[i * QUAD_LINES + c] = lines[c][i];
    }
    if (BITS == 4)
        for (int i = 0; i < 2; i++)
            line[i] = u8x64_join_nibbles(line[2 * i], line[2 * i + 1]);
    if (!changed) {
        for (int i = 0; i < GROUP_LINES; i++)
            u8x64_store(to + 64 * i, line[i]);
        return;
    }
    for (int i = 0; i < GROUP_LINES; i++) {
        const u8x64 bits = u8x64_from_i32(side == KVT_K ? i32x16_load(changed->k) : i32x16_set1(changed->v[i]));
        u8x64_store(to + 64 * i, u8x64_or(u8x64_and(line[i], bits), u8x64_andnot(u8x64_load(to + 64 * i), bits)));
    }
}

/* The 16 rows of a tile as the kernels see them: all channels that are stored, zeros where the caller has none. */
typedef struct tile_rows {
    const uint8_t *row[KVT_TILE_TOKENS];
    uint8_t tail[KVT_TILE_TOKENS][64]; /* the channels after the last whole group, padded */
} tile_rows;

static const uint8_t kvt_zero_row[KVT_MAX_DIM * 4];

KVT_LANES const uint8_t *group_of(const tile_rows *rows, uint32_t t, uint32_t g, uint32_t whole_groups, uint32_t group_bytes)
{
    return g < whole_groups ? rows->row[t] + (size_t)g * group_bytes : rows->tail[t];
}

KVT_LANES void write_tile(kvt_side side, kvt_dtype dtype, uint8_t *codes, uint8_t *scales, uint32_t dim, const uint8_t *from, ptrdiff_t row_stride,
                          uint32_t first, uint32_t count)
{
    const uint32_t groups = (dim + 15) / 16, whole_groups = dim / 16, group_bytes = 16 * element_bytes(dtype);
    const uint32_t first_quad = first / 4, end_quad = (first + count + 3) / 4;
    const bool is_whole = count == KVT_TILE_TOKENS;
    token_bits changed;
    if (!is_whole)
        changed = token_bits_of(first, count);
    tile_rows rows;
    for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
        rows.row[t] = t >= first && t < first + count ? from + (ptrdiff_t)(t - first) * row_stride : kvt_zero_row;
    if (whole_groups < groups) {
        memset(rows.tail, 0, sizeof rows.tail);
        for (uint32_t t = first; t < first + count; t++)
            memcpy(rows.tail[t], rows.row[t] + (size_t)whole_groups * group_bytes, dim % 16 * element_bytes(dtype));
    }

    for (uint32_t begin = 0; begin < groups; begin += BLOCK_GROUPS) {
        const uint32_t end = groups - begin < BLOCK_GROUPS ? groups : begin + BLOCK_GROUPS;
        const tile_rows *source = &rows;
        tile_rows representable;
        float r[KVT_TILE_TOKENS] = { 0 };
        if (SCALE_BYTES > 0) {
            uint32_t largest[KVT_TILE_TOKENS] = { 0 };
            for (uint32_t q = first_quad; q < end_quad; q++) {
                i32x16 m[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
                for (uint32_t g = begin; g < end; g++)
                    for (uint32_t k = 0; k < 4; k++)
                        m[k] = i32x16_max_u(m[k], magnitude(load_row(group_of(&rows, 4 * q + k, g, whole_groups, group_bytes), dtype)));
                quad_max_u(m, largest + 4 * q);
            }
            const block_scale s = scale_of(i32x16_load(largest));
            uint8_t stored[KVT_TILE_TOKENS * 4];
            if (SCALE_BYTES == 2)
                f32x16_store_f16(stored, s.scale);
            else
                f32x16_store(stored, s.scale);
            memcpy(scales + (begin / BLOCK_GROUPS * KVT_TILE_TOKENS + first) * SCALE_BYTES, stored + first * SCALE_BYTES, count * SCALE_BYTES);
            f32x16_store(r, s.r);
            if (s.has_unrepresentable) {
                representable = rows;
                for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
                    if (s.unrepresentable[t]) {
                        representable.row[t] = kvt_zero_row;
                        memset(representable.tail[t], 0, sizeof representable.tail[t]);
                    }
                source = &representable;
            }
        }
        for (uint32_t g = begin; g < end; g++) {
            u8x64 lines[QUAD_LINES][4];
            KVT_ROLLED
            for (uint32_t q = 0; q < 4; q++) {
                i32x16 code[4];
                for (uint32_t k = 0; k < 4; k++)
                    code[k] = load_codes(group_of(source, 4 * q + k, g, whole_groups, group_bytes), dtype, r[4 * q + k]);
                lines_from_quad(side, code, lines, q);
            }
            store_group(side, codes + (size_t)g * GROUP_LINES * 64, lines, is_whole ? NULL : &changed);
        }
    }
}

/* ---- read ---- */

KVT_LANES void store_row(uint8_t *p, kvt_dtype dtype, f32x16 x)
{
    if (dtype == KVT_F32)
        f32x16_store(p, x);
    else if (dtype == KVT_F16)
        f32x16_store_f16(p, x);
    else
        i32x16_store_u16(p, narrow_bf16(i32x16_from_f32_bits(x)));
}

KVT_LANES void store_decoded(uint8_t *p, kvt_dtype dtype, i32x16 code, float scale)
{
    if (dtype != SCHEME_DTYPE)
        store_row(p, dtype, decode(code, f32x16_set1(scale)));
    else if (BITS == 32)
        i32x16_store(p, code);
    else
        i32x16_store_u16(p, code);
}

KVT_LANES void load_group(kvt_side side, const uint8_t *from, u8x64 lines[QUAD_LINES][4])
{
    u8x64 line[GROUP_LINES < 4 ? 4 : GROUP_LINES];
    if (BITS == 4) {
        for (int i = 0; i < 2; i++) {
            const u8x64 both = u8x64_load(from + 64 * i);
            line[2 * i] = u8x64_low_nibbles(both);
            line[2 * i + 1] = u8x64_high_nibbles(both);
        }
    } else {
        for (int i = 0; i < GROUP_LINES; i++)
            line[i] = u8x64_load(from + 64 * i);
    }
    for (int c = 0; c < QUAD_LINES; c++) {
        for (int i = 0; i < 4; i++)
            lines[c][i] = line[i * QUAD_LINES + c];
        if (side == KVT_K)
            u8x64_swap_quarters(lines[c]);
    }
}

/* What garbage counts as (docs/formats.md, section 5): 0 times infinity would be a NaN of another sign on ARM than on x86, and a product that is
 * subnormal would depend on FTZ. */
KVT_LANES f32x16 readable_scale(f32x16 scale)
{
    const i32x16 all = i32x16_from_f32_bits(scale), bits = i32x16_and(all, i32x16_set1(0x7fffffff));
    const i32x16 finite = i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f7fffff)), i32x16_set1(0x7fc00000), all);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(0x05000000), bits), i32x16_set1(0), finite)); /* 2^-117 */
}

KVT_LANES void read_tile(kvt_side side, kvt_dtype dtype, const uint8_t *codes, const uint8_t *scales, uint32_t dim, uint8_t *to, ptrdiff_t row_stride,
                         uint32_t first, uint32_t count)
{
    const uint32_t groups = (dim + 15) / 16, whole_groups = dim / 16, group_bytes = 16 * element_bytes(dtype);
    const uint32_t first_quad = first / 4, end_quad = (first + count + 3) / 4, end = first + count;
    float scale[KVT_TILE_TOKENS] = { 0 };
    for (uint32_t g = 0; g < groups; g++) {
        if (SCALE_BYTES > 0 && g % BLOCK_GROUPS == 0) {
            const uint8_t *p = scales + (size_t)g / BLOCK_GROUPS * KVT_TILE_TOKENS * SCALE_BYTES;
            f32x16_store(scale, readable_scale(SCALE_BYTES == 2 ? f32x16_load_f16(p) : f32x16_load(p)));
        }
        u8x64 lines[QUAD_LINES][4];
        load_group(side, codes + (size_t)g * GROUP_LINES * 64, lines);
        for (uint32_t q = first_quad; q < end_quad; q++) {
            i32x16 code[4];
            quad_from_lines(side, lines, q, code);
            if (g < whole_groups && 4 * q >= first && 4 * q + 4 <= end) {
                uint8_t *row = to + (ptrdiff_t)(4 * q - first) * row_stride + (size_t)g * group_bytes;
                for (uint32_t k = 0; k < 4; k++)
                    store_decoded(row + (ptrdiff_t)k * row_stride, dtype, code[k], scale[4 * q + k]);
            } else { /* not all tokens, or not all channels, are wanted */
                uint8_t row[4][64];
                for (uint32_t k = 0; k < 4; k++)
                    store_decoded(row[k], dtype, code[k], scale[4 * q + k]);
                const uint32_t bytes = g < whole_groups ? group_bytes : dim % 16 * element_bytes(dtype);
                for (uint32_t k = 0; k < 4; k++)
                    if (4 * q + k >= first && 4 * q + k < end)
                        memcpy(to + (ptrdiff_t)(4 * q + k - first) * row_stride + (size_t)g * group_bytes, row[k], bytes);
            }
        }
    }
}

/* ---- the table: one copy of the loops for each side and number format of rows ---- */

#define KVT_BY_DTYPE(call, side, ...)                                                                                                                \
    switch (dtype) {                                                                                                                                 \
    case KVT_F32:                                                                                                                                    \
        call(side, KVT_F32, __VA_ARGS__);                                                                                                            \
        break;                                                                                                                                       \
    case KVT_F16:                                                                                                                                    \
        call(side, KVT_F16, __VA_ARGS__);                                                                                                            \
        break;                                                                                                                                       \
    case KVT_BF16:                                                                                                                                   \
        call(side, KVT_BF16, __VA_ARGS__);                                                                                                           \
        break;                                                                                                                                       \
    }

#define KVT_TILE_FUNCTIONS(name, side)                                                                                                               \
    static void write_##name(uint8_t *codes, uint8_t *scales, uint32_t dim, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype,              \
                             uint32_t first, uint32_t count)                                                                                         \
    {                                                                                                                                                \
        KVT_BY_DTYPE(write_tile, side, codes, scales, dim, rows, row_stride, first, count)                                                           \
    }                                                                                                                                                \
    static void read_##name(const uint8_t *codes, const uint8_t *scales, uint32_t dim, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype,         \
                            uint32_t first, uint32_t count)                                                                                          \
    {                                                                                                                                                \
        KVT_BY_DTYPE(read_tile, side, codes, scales, dim, rows, row_stride, first, count)                                                            \
    }

KVT_TILE_FUNCTIONS(k, KVT_K)
KVT_TILE_FUNCTIONS(v, KVT_V)

extern const kvt_kernels KVT_KERNELS_OF(SCHEME, KVT_TIER);
const kvt_kernels KVT_KERNELS_OF(SCHEME, KVT_TIER) = { .write = { write_k, write_v }, .read = { read_k, read_v } };
