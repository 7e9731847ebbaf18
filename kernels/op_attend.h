/* Attention's two loops over a page: logits from keys, weighted sums from values (docs/formats.md, section 9). Included by op_tile.h.
 *
 * A line is 16 tokens (K) or 16 channels (V) side by side, so sums run down the lines, and nothing is ever added across a register. A line is loaded
 * once for as many rows of queries as there are registers for their sums.
 *
 * Integer and table schemes (IS_INTEGER) multiply codes or levels of a byte by integers of 16 bits, queries or weights, whose sums are exact whatever
 * the tier makes of them: on tiers with dots of bytes two *terms*, the upper byte (rounded) and the lower one; where queries need only a byte, one.
 * The others multiply floats, in order of channels (K) or tokens (V); the 1, 2 or 4 numbers of a cell have sums of their own, which are added up at
 * the end. So a line is taken as it lies in memory: so many *parts* of 16 numbers, and a row's numbers for one cell, repeated, are what each of them
 * is multiplied with. */

#if defined(SCHEME_HAS_SCALES) && !defined(DECODES_BYTES)
enum { IS_INTEGER = 1 };
#else
enum { IS_INTEGER = 0, CODE_BIAS = 0 };
KVT_LANES u8x64 biased_codes(u8x64 code)
{
    return code;
}
#endif

#if defined(__clang__)
#define KVT_FOR_ROWS _Pragma("clang loop unroll(full)")
#else
#define KVT_FOR_ROWS _Pragma("GCC unroll 16")
#endif

enum {
    CHUNK_GROUPS = 4, /* of 64 channels or tokens, whose integers lie together */
    CHUNK_BYTES = 128,
    K_TERMS = KVT_DOT_BITS == 8 && BITS > 5 ? 2 : 1, /* A query of a byte costs 0.1 dB of codes of 5 bits, docs/design.md */
    V_TERMS = KVT_DOT_BITS == 8 ? 2 : 1,
    DOT_GROUPS = BLOCK_GROUPS < 8 ? BLOCK_GROUPS : 8,        /* whose dot fits 32 bits: 128 channels * 127 * 2^15 */
    IS_ONE_BLOCK = (int)BLOCK_GROUPS == (int)KVT_MAX_GROUPS, /* a scale per row */
    PARTS = BITS < 32 ? 32 / BITS : 1,
    FLOAT_ROWS = KVT_FLOAT_SUMS < 4 ? KVT_FLOAT_SUMS : 4
};

KVT_LANES size_t tile_code_bytes(uint32_t groups)
{
    return BITS == 5 || BITS == 3 ? (size_t)groups * 32 * (BITS - 1) + (size_t)((groups + 1) / 2) * 64 : (size_t)groups * 32 * BITS;
}
KVT_LANES size_t tile_scale_bytes(uint32_t groups, const kvt_tile_spec *spec)
{
    const uint32_t per_block = block_groups(spec);
    return SCALE_BYTES == 0 ? 0 : (size_t)((groups + per_block - 1) / per_block) * KVT_TILE_TOKENS * scale_bytes(spec);
}

/* The four lines of a byte per code of a group of a K or V tile, ready for dots. */
KVT_LANES void load_group_lines(const uint8_t *codes, uint32_t groups, uint32_t g, u8x64 line[4])
{
    if (BITS < 8)
        planes_load(BITS, codes, groups, g, line);
    else
        for (uint32_t i = 0; i < 4; i++)
            line[i] = u8x64_load(codes + (size_t)g * 256 + (size_t)i * 64);
    for (uint32_t i = 0; i < 4; i++)
        line[i] = biased_codes(line[i]);
}

/* `rows` times `terms` sums get the dots with a group's lines. Sum v is row v / terms, term v % terms; rows' quads are a chunk apart. */
#define ADD_LINE(j)                                                                                                                                  \
    {                                                                                                                                                \
        const dot_line codes_of_line = dot_line_of(line[j]);                                                                                         \
        KVT_FOR_ROWS                                                                                                                                 \
        for (uint32_t v = 0; v < rows * terms; v++)                                                                                                  \
            sum[v] = dot_add(sum[v], codes_of_line, dot_quads_at(quads + v / terms * CHUNK_BYTES + (size_t)(v % terms) * 64), j);                    \
    }
KVT_LANES void add_group(uint32_t rows, uint32_t terms, dot_sum *sum, const u8x64 line[4],
                         const uint8_t *quads){ ADD_LINE(0) ADD_LINE(1) ADD_LINE(2) ADD_LINE(3) }

/* The bias counts once: in the last term, which is added as it is. */
KVT_LANES void start_sums(uint32_t rows, uint32_t terms, dot_sum *sum, const uint32_t *start, size_t stride)
{
    KVT_FOR_ROWS
    for (uint32_t v = 0; v < rows * terms; v++)
        sum[v] = dot_start(CODE_BIAS != 0 && v % terms == terms - 1 ? start[v / terms * stride] : 0);
}

KVT_LANES f32x16 finish_sum(uint32_t row, uint32_t terms, const dot_sum *sum)
{
    const i32x16 last = dot_finish(sum[row * terms + terms - 1]);
    return f32x16_from_i32(terms == 1 ? last : i32x16_add(i32x16_shl(dot_finish(sum[row * terms]), 8), last));
}

/* What is below KVT_LEAST counts as nothing, so that products and their sums have no subnormal bits. */
KVT_LANES f32x16 without_least(f32x16 x)
{
    const i32x16 bits = i32x16_from_f32_bits(x);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(0x2c800000), magnitude_bits(x)), i32x16_set1(0), bits));
}

/* As much of what is wanted next as group i of a page's tiles has lines; to L2, because L1 has too few ways to wait for memory (24 on Zen 4, and one
 * more line every 8 cycles). */
KVT_LANES void prefetch_far(const uint8_t *p, size_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)p + ahead), 0, 2);
}
KVT_LANES void prefetch_group(const uint8_t *ahead, uint32_t i)
{
    KVT_FOR_ROWS
    for (uint32_t j = 0; j < (BITS + 1) / 2; j++)
        prefetch_far(ahead, ((size_t)i * ((BITS + 1) / 2) + j) * 64);
}
/* The scales of a page lie behind its codes. */
KVT_LANES void prefetch_scales(const uint8_t *ahead, uint32_t groups, const kvt_tile_spec *spec)
{
    const size_t bytes = KVT_PAGE_TOKENS / KVT_TILE_TOKENS * tile_scale_bytes(groups, spec);
    for (size_t i = 0; i < bytes; i += 64)
        prefetch_far(ahead, KVT_PAGE_TOKENS / KVT_TILE_TOKENS * tile_code_bytes(groups) + i);
}

/* ---- K: integers ---- */

/* To multiples of the row's largest number / 32639, the largest number both of whose terms are bytes; or of 1/127 of it where a term is enough. */
KVT_ONCE void prepare_queries(const kvt_queries *q, const kvt_tile_spec *spec)
{
    const uint32_t groups = spec->dim / 16, blocks = (groups + DOT_GROUPS - 1) / DOT_GROUPS;
    const bool is_byte = BITS <= 5;
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
            const uint32_t bias = CODE_BIAS * (is_byte && KVT_DOT_BITS == 16 ? 256u : 1u);
            for (uint32_t i = 0; i < CHUNK_GROUPS && begin + i < groups; i++)
                start[(begin + i) / DOT_GROUPS] -= bias * sum[i];
            u8x64 half[2];
            words_in_order(number, half);
            dot_store(q->quads + ((size_t)(begin / CHUNK_GROUPS) * q->n + row) * CHUNK_BYTES, half[0], half[1], K_TERMS);
        }
    }
}

KVT_LANES void score_rows(uint32_t rows, const uint8_t *codes, uint32_t groups, const float scale[][KVT_TILE_TOKENS], const kvt_queries *q,
                          uint32_t row, float *logits, kvt_ahead ahead)
{
    const uint8_t *quads = q->quads + (size_t)row * CHUNK_BYTES;
    f32x16 total[KVT_DOT_ROWS];
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        total[r] = f32x16_set1(0);
    for (uint32_t begin = 0, b = 0; begin < groups; begin += DOT_GROUPS, b++) {
        const uint32_t end = groups - begin < DOT_GROUPS ? groups : begin + DOT_GROUPS;
        dot_sum sum[KVT_DOT_ROWS];
        start_sums(rows, K_TERMS, sum, q->start + (size_t)row * groups + b, groups);
        for (uint32_t g = begin; g < end; g++) {
            u8x64 line[4];
            if (row == 0)
                prefetch_group(ahead, g);
            load_group_lines(codes, groups, g, line);
            add_group(rows, K_TERMS, sum, line, quads + (size_t)(g / CHUNK_GROUPS) * q->n * CHUNK_BYTES + (size_t)(g % CHUNK_GROUPS) * 16);
        }
        const f32x16 s = f32x16_load(scale[IS_ONE_BLOCK ? 0 : b]);
        KVT_FOR_ROWS
        for (uint32_t r = 0; r < rows; r++)
            total[r] = f32x16_fma(finish_sum(r, K_TERMS, sum), s, total[r]);
    }
    /* A byte that was not shifted up by 8 */
    const float unit = BITS <= 5 && KVT_DOT_BITS == 8 ? 0x1p8f : 1;
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        f32x16_store(logits + (size_t)(row + r) * KVT_SPAN_TOKENS, f32x16_mul(total[r], f32x16_set1(q->factor[row + r] * unit)));
}

/* ---- K: floats ---- */

enum { PART_BYTES = 64 / PARTS };

/* Parts first .. first+n-1 of a line. */
KVT_LANES void load_parts(const uint8_t *line, uint32_t first, uint32_t n, f32x16 part[PARTS])
{
#ifdef DECODES_BYTES
    if (n == PARTS) {
        load_fp8_line(line, part);
        return;
    }
#endif
    KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++) {
        const uint8_t *p = line + i * PART_BYTES;
#ifdef DECODES_BYTES
        part[i] = load_fp8(p);
#else
        part[i] = SCHEME_DTYPE == KVT_F16 ? f32x16_load_f16(p)
                                          : without_least(BITS == 32 ? f32x16_load(p) : f32x16_from_bits(widen_bf16(i32x16_load_u16(p))));
#endif
    }
}

/* What a line's parts are multiplied with. */
KVT_LANES f32x16 load_cell(const float *x)
{
    return PARTS == 4 ? f32x16_load_quad(x) : PARTS == 2 ? f32x16_load_pair(x) : f32x16_set1(*x);
}

/* As many parts at once as there are registers for the sums of. */
KVT_LANES uint32_t parts_at_once(uint32_t rows)
{
    const uint32_t room = rows < KVT_FLOAT_SUMS ? KVT_FLOAT_SUMS / rows : 1;
    return room < (uint32_t)PARTS ? room : (uint32_t)PARTS;
}

/* All parts' sums to those of 16 tokens or channels. */
KVT_LANES f32x16 sum_of_parts(const f32x16 part[PARTS])
{
    if (PARTS == 1)
        return part[0];
    if (PARTS == 2)
        return f32x16_add_neighbours(part[0], part[PARTS / 2]);
    return f32x16_add_neighbours(f32x16_add_neighbours(part[0], part[PARTS / 4]), f32x16_add_neighbours(part[PARTS / 2], part[PARTS - 1]));
}

KVT_LANES void clear_parts(uint32_t rows, uint32_t first, uint32_t n, f32x16 sum[FLOAT_ROWS][PARTS])
{
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        sum[r][i] = f32x16_set1(0);
}

/* To memory, if there are others, which need the registers. */
KVT_LANES void copy_parts(uint32_t rows, uint32_t first, uint32_t n, f32x16 to[FLOAT_ROWS][PARTS], f32x16 from[FLOAT_ROWS][PARTS])
{
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        to[r][i] = from[r][i];
    if (n < PARTS)
        __asm__ volatile("" : : "r"(to) : "memory");
}

/* Parts first .. first+n-1 of a line to rows' sums; row r's cell is at x + r * stride. */
KVT_LANES void add_parts(uint32_t rows, uint32_t first, uint32_t n, f32x16 sum[FLOAT_ROWS][PARTS], const f32x16 part[PARTS], const float *x,
                         size_t stride)
{
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++) {
        const f32x16 cell = load_cell(x + r * stride);
        KVT_FOR_ROWS
        for (uint32_t i = first; i < first + n; i++)
            sum[r][i] = f32x16_fma(part[i], cell, sum[r][i]);
    }
}

/* Lines begin .. end-1 of a tile of keys. */
KVT_LANES void add_keys(uint32_t rows, const uint8_t *codes, uint32_t begin, uint32_t end, const float *x, size_t dim, f32x16 sum[FLOAT_ROWS][PARTS],
                        bool is_first, kvt_ahead ahead)
{
    const uint32_t n = parts_at_once(rows);
    KVT_FOR_ROWS
    for (uint32_t first = 0; first < PARTS; first += n) {
        f32x16 s[FLOAT_ROWS][PARTS], part[PARTS];
        clear_parts(rows, first, n, s);
        for (uint32_t line = begin; line < end; line++) {
            if (first == 0 && is_first)
                prefetch_far(ahead, (size_t)line * 64);
            load_parts(codes + (size_t)line * 64, first, n, part);
            add_parts(rows, first, n, s, part, x + (size_t)line * PARTS, dim);
        }
        copy_parts(rows, first, n, sum, s);
    }
}

KVT_LANES void score_floats(uint32_t rows, const uint8_t *codes, uint32_t groups, const float scale[][KVT_TILE_TOKENS], uint32_t per_block,
                            const kvt_queries *q, uint32_t row, float *logits, kvt_ahead ahead)
{
    const uint32_t dim = groups * 16, per_sum = SCALE_BYTES > 0 && per_block < groups ? per_block : groups;
    f32x16 total[FLOAT_ROWS];
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        total[r] = f32x16_set1(0);
    for (uint32_t begin = 0, b = 0; begin < groups; begin += per_sum, b++) {
        const uint32_t end = groups - begin < per_sum ? groups : begin + per_sum;
        f32x16 sum[FLOAT_ROWS][PARTS];
        clear_parts(rows, 0, PARTS, sum); /* gcc does not see that all are set */
        add_keys(rows, codes, begin * 16 / PARTS, end * 16 / PARTS, q->x + (size_t)row * dim, dim, sum, row == 0, ahead);
        const f32x16 s = SCALE_BYTES > 0 ? without_least(f32x16_load(scale[b])) : f32x16_set1(1);
        KVT_FOR_ROWS
        for (uint32_t r = 0; r < rows; r++) {
            f32x16 all = sum_of_parts(sum[r]);
            if (SCALE_BYTES > 0)
                all = without_small(f32x16_mul(all, s));
            total[r] = f32x16_add(total[r], all);
        }
    }
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++)
        f32x16_store(logits + (size_t)(row + r) * KVT_SPAN_TOKENS, total[r]);
}

#define ROWS_AT_ONCE(call, most, n)                                                                                                                  \
    for (uint32_t row = 0; row < (n);) {                                                                                                             \
        if ((most) >= 8 && (n)-row >= 8) {                                                                                                           \
            call(8);                                                                                                                                 \
            row += 8;                                                                                                                                \
        } else if ((most) >= 4 && (n)-row >= 4) {                                                                                                    \
            call(4);                                                                                                                                 \
            row += 4;                                                                                                                                \
        } else if ((most) >= 2 && (n)-row >= 2) {                                                                                                    \
            call(2);                                                                                                                                 \
            row += 2;                                                                                                                                \
        } else {                                                                                                                                     \
            call(1);                                                                                                                                 \
            row += 1;                                                                                                                                \
        }                                                                                                                                            \
    }

static void score_page(const uint8_t *codes, const uint8_t *scales, const kvt_tile_spec *spec, const kvt_queries *q, uint32_t n_tiles, float *logits,
                       kvt_ahead ahead)
{
    const uint32_t groups = spec->dim / 16, per_block = SCALE_BYTES > 0 ? block_groups(spec) : 1;
    prefetch_scales(ahead, groups, spec);
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint8_t *tile_codes = codes + tile * tile_code_bytes(groups), *tile_scales = scales + tile * tile_scale_bytes(groups, spec);
        float scale[MAX_BLOCKS][KVT_TILE_TOKENS];
        if (SCALE_BYTES > 0)
            load_tile_scales(tile_scales, 0, (groups + per_block - 1) / per_block, spec, scale[0], KVT_TILE_TOKENS);
        float *to = logits + (size_t)tile * KVT_TILE_TOKENS;
        const uint8_t *next = (const uint8_t *)((uintptr_t)ahead + tile * tile_code_bytes(groups));
#define SCORE_ROWS(rows)   score_rows(rows, tile_codes, groups, (const float(*)[KVT_TILE_TOKENS])scale, q, row, to, next)
#define SCORE_FLOATS(rows) score_floats(rows, tile_codes, groups, (const float(*)[KVT_TILE_TOKENS])scale, per_block, q, row, to, next)
        if (IS_INTEGER)
            ROWS_AT_ONCE(SCORE_ROWS, KVT_DOT_ROWS / K_TERMS, q->n)
        else
            ROWS_AT_ONCE(SCORE_FLOATS, FLOAT_ROWS, q->n)
    }
}

/* ---- V ---- */

enum { PAGE_TILES = KVT_PAGE_TOKENS / KVT_TILE_TOKENS };

/* Lanes of tile i that are tokens first .. end-1 of the page keep x, the others get zeros. */
static const uint32_t lane_numbers[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
KVT_LANES f32x16 of_tokens(f32x16 x, uint32_t tile, uint32_t first, uint32_t end)
{
    const i32x16 token = i32x16_add(i32x16_load(lane_numbers), i32x16_set1(tile * KVT_TILE_TOKENS)), zero = i32x16_set1(0);
    const i32x16 begun = i32x16_select(i32x16_gt(i32x16_set1(end), token), i32x16_from_f32_bits(x), zero);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(first), token), zero, begun));
}

/* Scales of n blocks of a page from b on, to [block][token of the span]; zeros where tokens are not first .. end-1 of the page. */
KVT_LANES void load_page_scales(float *scale, const uint8_t *scales, uint32_t groups, const kvt_tile_spec *spec, uint32_t b, uint32_t n,
                                int64_t first, int64_t end)
{
    const size_t tile_bytes = tile_scale_bytes(groups, spec);
    for (uint32_t i = 0; i < PAGE_TILES; i++)
        load_tile_scales(scales + i * tile_bytes, b, n, spec, scale + 16 * i, KVT_SPAN_TOKENS);
    if (first <= 0 && end >= KVT_PAGE_TOKENS)
        return;
    const uint32_t from = first > 0 ? (uint32_t)first : 0, to = end < KVT_PAGE_TOKENS ? (uint32_t)end : KVT_PAGE_TOKENS;
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < PAGE_TILES; i++) {
            float *at = scale + k * KVT_SPAN_TOKENS + 16 * i;
            f32x16_store(at, of_tokens(f32x16_load(at), i, from, to));
        }
}

enum {
    BLOCKS_AT_A_TIME = 4, /* whose long chains of operations go side by side */
    VALUE_ROWS = KVT_DOT_ROWS / V_TERMS,
    PAGE_BYTES = KVT_PAGE_TOKENS * 2,    /* of words */
    TILE_LINES = KVT_TILE_TOKENS / PARTS /* of a group */
};

/* Scales of a few blocks as halfwords, multiples of the largest / 32767, and that divided by what weights are multiplied with. */
typedef struct span_scales {
    uint8_t words[BLOCKS_AT_A_TIME][KVT_SPAN_PAGES][PAGE_BYTES];
    float unit[BLOCKS_AT_A_TIME];
} span_scales;

KVT_LANES void load_span_scales(span_scales *to, const kvt_weighted *w, const kvt_tile_spec *spec, uint32_t groups, uint32_t b, uint32_t n)
{
    float scale[BLOCKS_AT_A_TIME * KVT_SPAN_TOKENS];
    i32x16 m[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
    for (uint32_t p = 0; p < w->pages; p++) {
        const int64_t begin = (int64_t)p * KVT_PAGE_TOKENS;
        load_page_scales(scale + begin, w->scales[p], groups, spec, b, n, w->first - begin, w->end - begin);
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

KVT_LANES void make_block_weights(uint32_t rows, block_weights *to, const kvt_weighted *w, const span_scales *scales, uint32_t k, uint32_t row)
{
    const u8x64 ones = u8x64_from_i32(i32x16_set1(0x00010001));
    KVT_FOR_ROWS
    for (uint32_t begin = 0; begin < rows; begin += 4) {
        i32x16 sum[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
        KVT_ROLLED
        for (uint32_t p = 0; p < w->pages; p++) {
            const u8x64 s[2] = { u8x64_load(scales->words[k][p]), u8x64_load(scales->words[k][p] + 64) };
            KVT_FOR_ROWS
            for (uint32_t i = 0; i < (rows < 4 ? rows : 4); i++) {
                const uint8_t *words = w->words + (size_t)(row + begin + i) * KVT_SPAN_TOKENS * 2 + p * PAGE_BYTES;
                const u8x64 x = i16x32_mulhrs(u8x64_load(words), s[0]), y = i16x32_mulhrs(u8x64_load(words + 64), s[1]);
                dot_store(to->quads[p] + (begin + i) * CHUNK_BYTES, x, y, V_TERMS);
                if (CODE_BIAS != 0)
                    sum[i] = i32x16_dot_s16(i32x16_dot_s16(sum[i], x, ones), y, ones);
            }
        }
        uint32_t total[4];
        quad_sum(sum, total);
        for (uint32_t i = 0; i < (rows < 4 ? rows : 4); i++) {
            to->start[begin + i] = 0u - CODE_BIAS * total[i];
            to->unit[begin + i] = w->factors[row + begin + i] * scales->unit[k];
        }
    }
}

/* `turned`: the group's lines of all pages, ready for dots, where values are stored as keys; otherwise NULL. */
KVT_LANES void value_group(uint32_t rows, const kvt_weighted *w, uint32_t groups, uint32_t g, uint32_t row, const block_weights *weights,
                           const uint8_t *turned)
{
    const size_t tile_bytes = tile_code_bytes(groups);
    dot_sum sum[KVT_DOT_ROWS];
    start_sums(rows, V_TERMS, sum, weights->start, 1);
    KVT_ROLLED
    for (uint32_t p = 0; p < w->pages; p++) {
        const uint8_t *codes = w->codes[p];
        if (row == 0 && !turned)
            for (uint32_t i = 0; i < PAGE_TILES; i++)
                prefetch_group(w->ahead[p], g * PAGE_TILES + i);
        KVT_ROLLED
        for (uint32_t i = 0; i < PAGE_TILES; i++) {
            u8x64 line[4];
            if (row == 0 && !turned) { /* the lines of the next group are not near, and L1 does not foresee them */
                KVT_FOR_ROWS
                for (uint32_t j = 0; j < (BITS + 1) / 2; j++)
                    prefetch_line(codes + i * tile_bytes, ((size_t)(g + 1) * ((BITS + 1) / 2) + j) * 64);
            }
            if (turned)
                for (uint32_t j = 0; j < 4; j++)
                    line[j] = u8x64_load(turned + ((size_t)p * PAGE_TILES + i) * 256 + (size_t)j * 64);
            else
                load_group_lines(codes + i * tile_bytes, groups, g, line);
            add_group(rows, V_TERMS, sum, line, weights->quads[p] + 16 * i);
        }
    }
    float *to = w->sums + row * w->sum_stride + 16 * g;
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++, to += w->sum_stride)
        f32x16_store(to, f32x16_fma(finish_sum(r, V_TERMS, sum), f32x16_set1(weights->unit[r]), f32x16_load(to)));
}

KVT_LANES void value_rows(uint32_t rows, const kvt_weighted *w, const span_scales *scales, uint32_t groups, uint32_t b, uint32_t n, uint32_t row)
{
    block_weights weights; /* in L1: of 8 rows, 8 KiB */
    for (uint32_t k = 0; k < n; k++) {
        make_block_weights(rows, &weights, w, scales, k, row);
        for (uint32_t g = (b + k) * BLOCK_GROUPS; g < groups && g < (b + k + 1) * BLOCK_GROUPS; g++)
            value_group(rows, w, groups, g, row, &weights, NULL);
    }
}

/* Of a page's tokens: all ones where they count, for cells whose tokens do not all count. */
typedef struct token_masks {
    uint32_t mask[KVT_PAGE_TOKENS];
} token_masks;

/* Zeros where tokens do not count: their values may be anything. */
KVT_LANES void mask_parts(uint32_t first, uint32_t n, f32x16 part[PARTS], const uint32_t *mask)
{
    float cell[PARTS];
    memcpy(cell, mask, sizeof cell);
    const i32x16 counts = i32x16_from_f32_bits(load_cell(cell));
    KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        part[i] = f32x16_from_bits(i32x16_and(i32x16_from_f32_bits(part[i]), counts));
}

/* The sums of group g over a page, whose tile i has the group's lines at codes + i * tile_bytes. `scaled`: weights of the rows, times their scales.
 * `masks`: NULL where all tokens count. */
KVT_LANES void value_floats(uint32_t rows, const uint8_t *codes, size_t tile_bytes, const float *scaled, size_t stride, const token_masks *masks,
                            const kvt_weighted *w, uint32_t row, uint32_t g, kvt_ahead ahead)
{
    const uint32_t n = parts_at_once(rows);
    f32x16 sum[FLOAT_ROWS][PARTS];
    clear_parts(rows, 0, PARTS, sum);
    KVT_FOR_ROWS
    for (uint32_t first = 0; first < PARTS; first += n) {
        f32x16 s[FLOAT_ROWS][PARTS], part[PARTS];
        clear_parts(rows, first, n, s);
        for (uint32_t line = 0; line < PAGE_TILES * TILE_LINES; line++) {
            if (ahead && first == 0 && row == 0)
                prefetch_far(ahead, ((size_t)g * PAGE_TILES * TILE_LINES + line) * 64);
            load_parts(codes + line / TILE_LINES * tile_bytes + line % TILE_LINES * 64, first, n, part);
            if (masks)
                mask_parts(first, n, part, &masks->mask[line * PARTS]);
            add_parts(rows, first, n, s, part, scaled + line * PARTS, stride);
        }
        copy_parts(rows, first, n, sum, s);
    }
    float *to = w->sums + row * w->sum_stride + 16 * g;
    KVT_FOR_ROWS
    for (uint32_t r = 0; r < rows; r++, to += w->sum_stride) {
        const f32x16 all = without_small(f32x16_mul(sum_of_parts(sum[r]), f32x16_set1(w->factors[row + r])));
        f32x16_store(to, f32x16_add(f32x16_load(to), all));
    }
}

/* Page p's weights of some rows times the scales of a block: to `products`, where there are scales. Returns where they are, and how far apart. */
KVT_LANES const float *scaled_weights(uint32_t rows, const kvt_weighted *w, uint32_t p, const float *scale, uint32_t row,
                                      float products[][KVT_PAGE_TOKENS], size_t *stride)
{
    const float *weights = w->weights + (size_t)row * KVT_SPAN_TOKENS + p * KVT_PAGE_TOKENS;
    *stride = KVT_SPAN_TOKENS;
    if (SCALE_BYTES == 0)
        return weights;
    for (uint32_t i = 0; i < PAGE_TILES; i++) {
        const f32x16 s = without_least(f32x16_load(scale + 16 * i));
        for (uint32_t r = 0; r < rows; r++)
            f32x16_store(products[r] + 16 * i, f32x16_mul(f32x16_load(weights + (size_t)r * KVT_SPAN_TOKENS + 16 * i), s));
    }
    *stride = KVT_PAGE_TOKENS;
    return products[0];
}

/* Blocks b .. b+n-1; `scale` is theirs, of the page's tokens. */
KVT_LANES void value_float_rows(uint32_t rows, const kvt_weighted *w, uint32_t p, const float *scale, const token_masks *masks, uint32_t groups,
                                uint32_t per_block, uint32_t b, uint32_t n, uint32_t row)
{
    const size_t tile_bytes = tile_code_bytes(groups);
    for (uint32_t k = 0; k < n; k++) {
        float products[FLOAT_ROWS][KVT_PAGE_TOKENS];
        size_t stride;
        const float *scaled = scaled_weights(rows, w, p, scale + (size_t)k * KVT_SPAN_TOKENS, row, products, &stride);
        for (uint32_t g = (b + k) * per_block; g < groups && g < (b + k + 1) * per_block; g++) {
            const uint8_t *codes = w->codes[p] + (size_t)g * TILE_LINES * 64;
            if (masks)
                value_floats(rows, codes, tile_bytes, scaled, stride, masks, w, row, g, w->ahead[p]);
            else
                value_floats(rows, codes, tile_bytes, scaled, stride, NULL, w, row, g, w->ahead[p]);
        }
    }
}

/* NULL where all tokens of page p count. */
KVT_LANES const token_masks *mask_page(token_masks *to, const kvt_weighted *w, uint32_t p)
{
    const uint32_t begin = p * KVT_PAGE_TOKENS;
    if (w->first <= begin && w->end >= begin + KVT_PAGE_TOKENS)
        return NULL;
    for (uint32_t t = 0; t < KVT_PAGE_TOKENS; t++)
        to->mask[t] = begin + t >= w->first && begin + t < w->end ? 0xffffffffu : 0;
    return to;
}

static void value_span(const kvt_tile_spec *spec, const kvt_weighted *w)
{
    const uint32_t groups = spec->dim / 16, per_block = SCALE_BYTES > 0 ? block_groups(spec) : groups, blocks = (groups + per_block - 1) / per_block;
    for (uint32_t p = 0; p < w->pages; p++)
        prefetch_scales(w->ahead[p], groups, spec);
    for (uint32_t b = 0; b < blocks; b += BLOCKS_AT_A_TIME) {
        const uint32_t n = blocks - b < BLOCKS_AT_A_TIME ? blocks - b : BLOCKS_AT_A_TIME;
#define VALUE_OF_ROWS(rows)   value_rows(rows, w, &scales, groups, b, n, row)
#define VALUE_OF_FLOATS(rows) value_float_rows(rows, w, p, scale, masks, groups, per_block, b, n, row)
        if (IS_INTEGER) {
            span_scales scales;
            load_span_scales(&scales, w, spec, groups, b, n);
            ROWS_AT_ONCE(VALUE_OF_ROWS, VALUE_ROWS, w->rows)
        } else {
            for (uint32_t p = 0; p < w->pages; p++) {
                const int64_t begin = (int64_t)p * KVT_PAGE_TOKENS;
                float scale[BLOCKS_AT_A_TIME * KVT_SPAN_TOKENS];
                token_masks page_masks;
                const token_masks *masks = mask_page(&page_masks, w, p);
                if (SCALE_BYTES > 0)
                    load_page_scales(scale, w->scales[p], groups, spec, b, n, w->first - begin, w->end - begin);
                ROWS_AT_ONCE(VALUE_OF_FLOATS, FLOAT_ROWS, w->rows)
            }
        }
    }
}

/* ---- keys that are values too: the latent of MLA ---- */

enum {
    TURNED_ROWS = 32, /* for which a group is turned once, and whose weights stay in L1 */
    TURNED_BYTES = KVT_SPAN_TOKENS * 16 * CODE_BYTES
};

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

/* A group of a K tile as the V tile of the same numbers has it; codes become bytes that are ready for dots. */
KVT_LANES void turn_group(const uint8_t *codes, uint32_t groups, uint32_t g, uint8_t *to)
{
    if (CODE_BYTES == 1) {
        u8x64 line[4];
        load_group_lines(codes, groups, g, line);
        for (int i = 0; i < 4; i++)
            line[i] = u8x64_swap_cells(line[i]);
        u8x64_swap_quarters(line);
        for (int i = 0; i < 4; i++)
            u8x64_store(to + (size_t)i * 64, line[i]);
        return;
    }
    const uint8_t *from = codes + (size_t)g * GROUP_LINES * 64;
    i32x16 row[16];
    for (int i = 0; i < 16; i++) {
        const i32x16 line = i32x16_load(from + (size_t)(i * CODE_BYTES / 4) * 64);
        row[i] = CODE_BYTES == 4 ? line : i % 2 ? i32x16_shr(line, 16) : i32x16_and(line, i32x16_set1(0xffff));
    }
    turn_lanes(row);
    for (int i = 0; i < 16; i += 4 / CODE_BYTES)
        i32x16_store(to + (size_t)(i * CODE_BYTES / 4) * 64,
                     CODE_BYTES == 4 ? row[i] : i32x16_or(row[i], i32x16_shl(row[i + 1 < 16 ? i + 1 : i], 16)));
}

KVT_LANES void turn_page(const kvt_weighted *w, uint32_t p, uint32_t groups, uint32_t g, bool is_first, uint8_t *to)
{
    const size_t tile_bytes = tile_code_bytes(groups);
    for (uint32_t i = 0; i < PAGE_TILES; i++) {
        if (is_first)
            prefetch_group(w->ahead[p], g * PAGE_TILES + i);
        turn_group(w->codes[p] + i * tile_bytes, groups, g, to + (size_t)i * GROUP_LINES * 64);
    }
}

/* Rows begin .. end-1 of a block. */
KVT_ONCE void value_key_rows(const kvt_weighted *w, const span_scales *scales, uint32_t groups, uint32_t b, uint32_t k, uint32_t begin, uint32_t end)
{
    block_weights weights[TURNED_ROWS / VALUE_ROWS + 2]; /* of 31 rows, the last 7 are three lots */
    uint32_t lot = 0;
#define MAKE_WEIGHTS(rows) make_block_weights(rows, &weights[lot++], w, scales, k, begin + row)
    ROWS_AT_ONCE(MAKE_WEIGHTS, VALUE_ROWS, end - begin)
    for (uint32_t g = (b + k) * BLOCK_GROUPS; g < groups && g < (b + k + 1) * BLOCK_GROUPS; g++) {
        uint8_t turned[TURNED_BYTES];
        for (uint32_t p = 0; p < w->pages; p++)
            turn_page(w, p, groups, g, begin == 0, turned + (size_t)p * PAGE_TILES * GROUP_LINES * 64);
        lot = 0;
#define TURNED_OF_ROWS(rows) value_group(rows, w, groups, g, begin + row, &weights[lot++], turned)
        ROWS_AT_ONCE(TURNED_OF_ROWS, VALUE_ROWS, end - begin)
    }
}

/* The same of numbers, for one page; `scale` is of the block. */
KVT_ONCE void value_float_key_rows(const kvt_weighted *w, uint32_t p, const float *scale, const token_masks *masks, uint32_t groups,
                                   uint32_t per_block, uint32_t b, uint32_t begin, uint32_t end)
{
    float products[TURNED_ROWS][KVT_PAGE_TOKENS];
    size_t stride;
    const float *scaled = scaled_weights(end - begin, w, p, scale, begin, products, &stride);
    for (uint32_t g = b * per_block; g < groups && g < (b + 1) * per_block; g++) {
        uint8_t turned[TURNED_BYTES / KVT_SPAN_PAGES];
        turn_page(w, p, groups, g, begin == 0, turned);
#define TURNED_OF_FLOATS(rows) value_floats(rows, turned, GROUP_LINES * 64, scaled + row * stride, stride, masks, w, begin + row, g, NULL)
        if (masks)
            ROWS_AT_ONCE(TURNED_OF_FLOATS, FLOAT_ROWS, end - begin)
        else
            ROWS_AT_ONCE(TURNED_OF_FLOATS, FLOAT_ROWS, end - begin)
    }
}

static void value_keys(const kvt_tile_spec *spec, const kvt_weighted *w)
{
    const uint32_t groups = spec->dim / 16, per_block = SCALE_BYTES > 0 ? block_groups(spec) : groups, blocks = (groups + per_block - 1) / per_block;
    for (uint32_t p = 0; p < w->pages; p++)
        prefetch_scales(w->ahead[p], groups, spec);
    for (uint32_t b = 0; b < blocks; b += BLOCKS_AT_A_TIME) {
        const uint32_t n = blocks - b < BLOCKS_AT_A_TIME ? blocks - b : BLOCKS_AT_A_TIME;
        if (IS_INTEGER) {
            span_scales scales;
            load_span_scales(&scales, w, spec, groups, b, n);
            for (uint32_t k = 0; k < n; k++)
                for (uint32_t row = 0; row < w->rows; row += TURNED_ROWS)
                    value_key_rows(w, &scales, groups, b, k, row, w->rows - row < TURNED_ROWS ? w->rows : row + TURNED_ROWS);
            continue;
        }
        for (uint32_t p = 0; p < w->pages; p++) {
            const int64_t begin = (int64_t)p * KVT_PAGE_TOKENS;
            float scale[BLOCKS_AT_A_TIME * KVT_SPAN_TOKENS];
            token_masks page_masks;
            const token_masks *masks = mask_page(&page_masks, w, p);
            if (SCALE_BYTES > 0)
                load_page_scales(scale, w->scales[p], groups, spec, b, n, w->first - begin, w->end - begin);
            for (uint32_t k = 0; k < n; k++)
                for (uint32_t row = 0; row < w->rows; row += TURNED_ROWS)
                    value_float_key_rows(w, p, scale + (size_t)k * KVT_SPAN_TOKENS, masks, groups, per_block, b + k, row,
                                         w->rows - row < TURNED_ROWS ? w->rows : row + TURNED_ROWS);
        }
    }
}
