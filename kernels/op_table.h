/* The scales of table schemes: read from their bytes, and searched for by the encoder. docs/formats.md, section 4, has every step; numbers of steps
 * below are its. All of it works on 16 rows or candidates at once, lane by lane.
 *
 * A scale is handled as a grid index: the upper bits of its float, bits >> 20 for a row's first scale (3 bits of mantissa) and bits >> 19 for the
 * others (4). */

enum {
    FIRST_SHIFT = 20,
    OTHER_SHIFT = 19,
    FIRST_BIAS = 105, /* exponent of a float - exponent of the first scale: 127 - 22 */
    OTHER_BIAS = 101  /* the same of other scales relative to the first: 127 - 22 - 4 */
};

/* 0x35800000 = 2^-20: what is smaller is zero. 0x47800000 = 2^16: what is not smaller cannot be represented. */
#define TINY_BITS 0x35800000u
#define HUGE_BITS 0x47800000u

/* What the first scales of 16 rows decide for the others. */
typedef struct first_scales {
    f32x16 scale;
    i32x16 exponent; /* to be added to the others' */
    mask16 is_zero, is_nan;
    bool are_plain; /* no zero, no NaN */
} first_scales;

KVT_LANES first_scales load_first_scales(const uint8_t *scales)
{
    const i32x16 u = i32x16_load_u8(scales), zero = i32x16_set1(0);
    first_scales first = { .exponent = i32x16_shl(i32x16_add(i32x16_shr(u, 3), i32x16_set1(OTHER_BIAS)), 23),
                           .is_zero = i32x16_gt(i32x16_set1(1), u),
                           .is_nan = i32x16_gt(u, i32x16_set1(254)) };
    const i32x16 bits = i32x16_shl(i32x16_add(u, i32x16_set1(FIRST_BIAS << 3)), FIRST_SHIFT);
    first.scale = f32x16_from_bits(i32x16_select(first.is_zero, zero, i32x16_select(first.is_nan, i32x16_set1(0x7fc00000), bits)));
    first.are_plain = !mask16_any(i32x16_gt(i32x16_add(u, i32x16_set1(UINT32_MAX)), i32x16_set1(253))) && !mask16_any(first.is_zero);
    return first;
}

KVT_LANES f32x16 load_other_scales(const first_scales *first, const uint8_t *scales)
{
    const i32x16 u = i32x16_load_u8(scales), m = i32x16_and(u, i32x16_set1(127)), zero = i32x16_set1(0);
    const i32x16 magnitude_of = i32x16_add(i32x16_shl(m, OTHER_SHIFT), first->exponent), sign = i32x16_shl(i32x16_xor(u, m), 24);
    const i32x16 bits = i32x16_select(i32x16_gt(m, zero), i32x16_or(magnitude_of, sign), zero);
    if (first->are_plain)
        return f32x16_from_bits(bits);
    return f32x16_from_bits(i32x16_select(first->is_zero, zero, i32x16_select(first->is_nan, i32x16_set1(0x7fc00000), bits)));
}

KVT_LANES f32x16 load_block_scales(const uint8_t *scales, uint32_t b, const kvt_tile_spec *spec)
{
    (void)spec;
    const first_scales first = load_first_scales(scales);
    return b == 0 ? first.scale : load_other_scales(&first, scales + (size_t)b * KVT_TILE_TOKENS);
}

KVT_LANES void load_tile_scales(const uint8_t *scales, uint32_t b, uint32_t n, const kvt_tile_spec *spec, float *to, size_t stride)
{
    (void)spec;
    const first_scales first = load_first_scales(scales);
    for (uint32_t k = 0; k < n; k++)
        f32x16_store(to + k * stride, b + k == 0 ? first.scale : load_other_scales(&first, scales + (size_t)(b + k) * KVT_TILE_TOKENS));
}

/* ---- one block of 16 rows, or of one row with 16 candidates (step 5) ---- */

enum { BLOCK_QUADS = BLOCK_GROUPS * 4 };

/* X(c), scaled to 12 bits, as halfwords. words[i][h] has channels 4i .. 4i+3 of a lane's row one after the other; h = 0 has lanes 0 and 1 of each
 * quarter, h = 1 lanes 2 and 3. */
typedef struct block_words {
    u8x64 words[BLOCK_QUADS][2];
} block_words;

/* Sums over the block for both signs of a candidate: A as 256 A, and N. */
typedef struct block_sums {
    i32x16 a, n, a_neg, n_neg;
} block_sums;

KVT_LANES void sum_up(const nearest *near, u8x64 y, const u8x64 x[2], i32x16 a[2], i32x16 *n)
{
    const u8x64 v = nearest_level(near, y), magnitude_of = u8x64_abs_s8(v);
    u8x64 half[2];
    u8x64_widen_high_s8(v, half);
    a[0] = i32x16_dot_s16(a[0], x[0], half[0]);
    a[1] = i32x16_dot_s16(a[1], x[1], half[1]);
    *n = i32x16_dot_u7s8(*n, magnitude_of, magnitude_of);
}

KVT_LANES block_sums sums_of(const nearest *near, const block_words *x, uint32_t quads, i32x16 m)
{
    const i32x16 zero = i32x16_set1(0);
    i32x16 a[2] = { zero, zero }, a_neg[2] = { zero, zero }, n = zero, n_neg = zero;
    u8x64 factor[2];
    i32x16_twice(i32x16_or(m, i32x16_shl(m, 16)), factor);
    KVT_ROLLED
    for (uint32_t i = 0; i < quads; i++) {
        const u8x64 y = i16x32_pack_s8(i16x32_mulhrs(x->words[i][0], factor[0]), i16x32_mulhrs(x->words[i][1], factor[1]));
        sum_up(near, y, x->words[i], a, &n);
        sum_up(near, u8x64_neg_s8(y), x->words[i], a_neg, &n_neg);
    }
    return (block_sums){ i32x16_add_pairs(a[0], a[1]), n, i32x16_sub(zero, i32x16_add_pairs(a_neg[0], a_neg[1])), n_neg };
}

/* g (2A - g N); 2A is exact: 256 A has no more than 24 bits that count. */
KVT_LANES f32x16 gain_of(f32x16 g, i32x16 a256, i32x16 n)
{
    const f32x16 twice_a = f32x16_mul(f32x16_from_i32(a256), f32x16_set1(0x1p-7f));
    return f32x16_mul(g, f32x16_sub(twice_a, f32x16_mul(g, f32x16_from_i32(n))));
}

KVT_LANES f32x16 scale_at(bool is_first, i32x16 index)
{
    return f32x16_from_bits(is_first ? i32x16_shl(index, FIRST_SHIFT) : i32x16_shl(index, OTHER_SHIFT));
}

/* M = 32768 / g in halfwords. */
KVT_LANES i32x16 factor_of(f32x16 g)
{
    return i32x16_min_s(i32x16_from_f32_rne(f32x16_div(f32x16_set1(32768.0f), g)), i32x16_set1(32767));
}

KVT_LANES i32x16 limited(i32x16 x, i32x16 low, i32x16 high)
{
    return i32x16_min_s(i32x16_max_s(x, low), high);
}

/* Where a block's candidates lie, lane by lane. */
typedef struct block_grid {
    i32x16 index;       /* of the block's largest number / 127, rounded down */
    i32x16 low, high;   /* what can be stored */
    i32x16 is_negative; /* 0x80 where effort fast takes the negative scale */
    f32x16 p;           /* 2047 / the largest number */
} block_grid;

/* A choice: the index, with 0x80000000 where the scale is negative. */
enum { NEGATIVE = -0x7fffffff - 1 };

KVT_LANES i32x16 search(const nearest *near, bool is_first, kvt_effort effort, const block_words *x, uint32_t quads, const block_grid *grid)
{
    const int count = effort == KVT_EFFORT_BEST ? 16 : 8, first = effort == KVT_EFFORT_BEST ? BEST_FIRST : SEARCH_FIRST,
              step = effort == KVT_EFFORT_BEST ? 1 : SEARCH_STEP;
    i32x16 chosen = i32x16_set1(0);
    f32x16 best = f32x16_set1(-INFINITY);
    KVT_ROLLED
    for (int i = 0; i < count; i++) {
        const i32x16 index = limited(i32x16_add(grid->index, i32x16_set1((uint32_t)(first + i * step))), grid->low, grid->high);
        const f32x16 g = f32x16_mul(scale_at(is_first, index), grid->p);
        const block_sums s = sums_of(near, x, quads, factor_of(g));
        const f32x16 gain = gain_of(g, s.a, s.n), gain_neg = gain_of(g, s.a_neg, s.n_neg);
        const mask16 better = f32x16_gt(gain, best);
        chosen = i32x16_select(better, index, chosen);
        best = f32x16_from_bits(i32x16_select(better, i32x16_from_f32_bits(gain), i32x16_from_f32_bits(best)));
        if (!is_first) {
            const mask16 better_neg = f32x16_gt(gain_neg, best);
            chosen = i32x16_select(better_neg, i32x16_or(index, i32x16_set1((uint32_t)NEGATIVE)), chosen);
            best = f32x16_from_bits(i32x16_select(better_neg, i32x16_from_f32_bits(gain_neg), i32x16_from_f32_bits(best)));
        }
    }
    return chosen;
}

/* Effort fast (step 6). */
KVT_LANES i32x16 fit(const nearest *near, bool is_first, const block_words *x, uint32_t quads, const block_grid *grid)
{
    const i32x16 zero = i32x16_set1(0), index = limited(i32x16_add(grid->index, i32x16_set1(FAST)), grid->low, grid->high);
    const f32x16 s = scale_at(is_first, index);
    const mask16 negative = i32x16_gt(is_first ? zero : grid->is_negative, zero);
    const i32x16 m = factor_of(f32x16_mul(s, grid->p));
    i32x16 a[2] = { zero, zero }, n = zero;
    u8x64 factor[2];
    i32x16_twice(i32x16_or(m, i32x16_shl(m, 16)), factor);
    const u8x64 flip = u8x64_from_i32(i32x16_select(negative, i32x16_set1(UINT32_MAX), zero));
    KVT_ROLLED
    for (uint32_t i = 0; i < quads; i++) {
        const u8x64 y = i16x32_pack_s8(i16x32_mulhrs(x->words[i][0], factor[0]), i16x32_mulhrs(x->words[i][1], factor[1]));
        sum_up(near, u8x64_or(u8x64_andnot(y, flip), u8x64_and(u8x64_neg_s8(y), flip)), x->words[i], a, &n);
    }
    const i32x16 a256 = i32x16_add_pairs(a[0], a[1]), sum = i32x16_select(negative, i32x16_sub(zero, a256), a256);
    const mask16 is_positive = i32x16_gt(sum, zero);
    const f32x16 safe_n = f32x16_from_i32(i32x16_select(is_positive, n, i32x16_set1(1)));
    const f32x16 fitted = f32x16_div(f32x16_div(f32x16_mul(f32x16_from_i32(sum), f32x16_set1(0x1p-8f)), safe_n), grid->p);
    const i32x16 bits = i32x16_from_f32_bits(fitted);
    const i32x16 rounded = is_first ? i32x16_shr(i32x16_add(bits, i32x16_set1(1u << (FIRST_SHIFT - 1))), FIRST_SHIFT)
                                    : i32x16_shr(i32x16_add(bits, i32x16_set1(1u << (OTHER_SHIFT - 1))), OTHER_SHIFT);
    const i32x16 chosen = i32x16_select(is_positive, limited(rounded, grid->low, grid->high), index);
    return i32x16_or(chosen, i32x16_select(negative, i32x16_set1((uint32_t)NEGATIVE), zero));
}

/* ---- a row's blocks one after the other: what the first decides for the others ---- */

/* Lane by lane: 16 rows, or 16 times the same. */
typedef struct row_state {
    mask16 is_zero, is_nan;
    i32x16 low_of_first; /* index below which the first scale would put the others out of reach (step 3) */
    i32x16 base;         /* (exponent of the first scale + OTHER_BIAS) << 4 */
} row_state;

KVT_LANES f32x16 over_127(i32x16 bits)
{
    return f32x16_div(f32x16_from_bits(bits), f32x16_set1(127.0f));
}

/* `largest`: |x| of the whole row, as bits. */
KVT_LANES row_state start_row(i32x16 largest)
{
    const i32x16 exponent = i32x16_shr(i32x16_from_f32_bits(over_127(largest)), 23);
    const i32x16 low = i32x16_max_s(i32x16_set1(1), i32x16_shl(i32x16_sub(exponent, i32x16_set1(FIRST_BIAS + 3)), 3));
    return (row_state){
        .is_zero = i32x16_gt(i32x16_set1(TINY_BITS), largest),
        .is_nan = i32x16_gt(largest, i32x16_set1(HUGE_BITS - 1)),
        .low_of_first = i32x16_add(low, i32x16_set1(FIRST_BIAS << 3)),
        .base = i32x16_set1(0),
    };
}

/* `signed_largest`: of the block, as signed_magnitude gives it. */
KVT_LANES block_grid grid_of(bool is_first, const row_state *row, i32x16 signed_largest)
{
    const i32x16 largest = i32x16_max_s(i32x16_shr(signed_largest, 1), i32x16_set1(TINY_BITS)); /* smaller ones are not searched for */
    const i32x16 bits = i32x16_from_f32_bits(over_127(largest));
    const i32x16 low = is_first ? row->low_of_first : i32x16_add(row->base, i32x16_set1(1));
    return (block_grid){
        .index = is_first ? i32x16_shr(bits, FIRST_SHIFT) : i32x16_shr(bits, OTHER_SHIFT),
        .low = low,
        .high = is_first ? i32x16_set1(254 + (FIRST_BIAS << 3)) : i32x16_add(row->base, i32x16_set1(127)),
        .is_negative = i32x16_shl(i32x16_and(i32x16_xor(signed_largest, i32x16_set1(1)), i32x16_set1(1)), 7),
        .p = f32x16_div(f32x16_set1(2047.0f), f32x16_from_bits(largest)),
    };
}

/* From a choice to the byte that is stored and to r; the first block's also sets what the others depend on. */
KVT_LANES i32x16 settle(bool is_first, row_state *row, const block_grid *grid, i32x16 signed_largest, i32x16 chosen, f32x16 *r)
{
    const i32x16 zero = i32x16_set1(0), index = i32x16_and(chosen, i32x16_set1(0x7fffffff)),
                 sign = i32x16_and(chosen, i32x16_set1((uint32_t)NEGATIVE));
    const mask16 is_tiny = i32x16_gt(i32x16_set1(TINY_BITS), i32x16_shr(signed_largest, 1));
    i32x16 u, r_bits;
    if (is_first) {
        const i32x16 taken = i32x16_select(is_tiny, row->low_of_first, index);
        row->base = i32x16_shl(i32x16_add(i32x16_shr(taken, 3), i32x16_set1((uint32_t)(OTHER_BIAS - FIRST_BIAS))), 4);
        u = i32x16_sub(taken, i32x16_set1(FIRST_BIAS << 3));
        r_bits = i32x16_from_f32_bits(f32x16_div(f32x16_set1(1.0f), scale_at(true, taken)));
    } else {
        const mask16 is_far = i32x16_gt(i32x16_sub(row->base, i32x16_set1(31)), grid->index); /* index - base <= -32 */
        u = i32x16_or(i32x16_sub(index, row->base), i32x16_shr(sign, 24));
        u = i32x16_select(is_far, zero, i32x16_select(is_tiny, zero, u));
        r_bits = i32x16_or(i32x16_from_f32_bits(f32x16_div(f32x16_set1(1.0f), scale_at(false, index))), sign);
        r_bits = i32x16_select(is_far, zero, i32x16_select(is_tiny, zero, r_bits));
    }
    u = i32x16_select(row->is_zero, zero, i32x16_select(row->is_nan, is_first ? i32x16_set1(255) : zero, u));
    *r = f32x16_from_bits(i32x16_select(row->is_zero, zero, i32x16_select(row->is_nan, zero, r_bits)));
    return u;
}

/* ---- 16 rows ---- */

KVT_LANES void words_of_tile(block_words *x, const tile_rows *rows, uint32_t begin, uint32_t end, f32x16 p)
{
    float factor[KVT_TILE_TOKENS];
    f32x16_store(factor, p);
    for (uint32_t g = begin; g < end; g++) {
        u8x64 half[2][4];
        KVT_ROLLED
        for (uint32_t q = 0; q < 4; q++) {
            i32x16 row[4];
            for (uint32_t k = 0; k < 4; k++)
                row[k] = encode(load_row(group_of(rows->row[4 * q + k], g, KVT_F32), KVT_F32), f32x16_set1(factor[4 * q + k]));
            u8x64 words[2];
            quad16_words(row, words);
            half[0][q] = words[0];
            half[1][q] = words[1];
        }
        u8x64_swap_quarters(half[0]);
        u8x64_swap_quarters(half[1]);
        for (uint32_t i = 0; i < 4; i++) {
            x->words[4 * (g - begin) + i][0] = half[0][i];
            x->words[4 * (g - begin) + i][1] = half[1][i];
        }
    }
}

/* One block; its multipliers go to r, with NaN for rows that cannot be represented. */
KVT_LANES void choose_block_scales(const nearest *near, bool is_first, uint8_t *scale, kvt_effort effort, uint32_t groups, uint32_t begin,
                                   const tile_rows *rows, row_state *state, i32x16 largest, float r[KVT_TILE_TOKENS])
{
    const uint32_t end = groups - begin < BLOCK_GROUPS ? groups : begin + BLOCK_GROUPS;
    const block_grid grid = grid_of(is_first, state, largest);
    block_words x;
    words_of_tile(&x, rows, begin, end, grid.p);
    const i32x16 chosen =
        effort == KVT_EFFORT_FAST ? fit(near, is_first, &x, 4 * (end - begin), &grid) : search(near, is_first, effort, &x, 4 * (end - begin), &grid);
    f32x16 multiplier;
    i32x16_store_u8(scale, settle(is_first, state, &grid, largest, chosen, &multiplier));
    i32x16_store(r, i32x16_select(state->is_nan, i32x16_set1(0x7fc00000), i32x16_from_f32_bits(multiplier)));
}

KVT_ONCE bool choose_tile_scales(kvt_dtype dtype, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const tile_rows *given, uint32_t quads,
                                 tile_factors *factors)
{
    (void)dtype;
    (void)quads; /* a lane that does not matter costs nothing */
    uint32_t largest[MAX_BLOCKS][KVT_TILE_TOKENS];
    largest_of_blocks(given, 4, KVT_F32, groups, BLOCK_GROUPS, largest);
    i32x16 of_row = i32x16_set1(0);
    for (uint32_t b = 0; b * BLOCK_GROUPS < groups; b++)
        of_row = i32x16_max_u(of_row, i32x16_load(largest[b]));
    row_state state = start_row(i32x16_shr(of_row, 1));
    const bool has_nan = mask16_any(state.is_nan);
    tile_rows rows = *given;
    if (has_nan) {
        uint32_t is_nan[KVT_TILE_TOKENS];
        i32x16_store(is_nan, i32x16_select(state.is_nan, i32x16_set1(1), i32x16_set1(0)));
        for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
            if (is_nan[t])
                rows.row[t] = kvt_zero_row;
        for (uint32_t b = 0; b * BLOCK_GROUPS < groups; b++)
            i32x16_store(largest[b], i32x16_select(state.is_nan, i32x16_set1(0), i32x16_load(largest[b])));
    }
    const nearest near = nearest_make();
    choose_block_scales(&near, true, scales, spec->effort, groups, 0, &rows, &state, i32x16_load(largest[0]), factors->r[0]);
    for (uint32_t b = 1; b * BLOCK_GROUPS < groups; b++)
        choose_block_scales(&near, false, scales + (size_t)b * KVT_TILE_TOKENS, spec->effort, groups, b * BLOCK_GROUPS, &rows, &state,
                            i32x16_load(largest[b]), factors->r[b]);
    return has_nan;
}

/* ---- one row: a lane is a candidate ----
 *
 * Half a block_words' lanes are enough for the default effort's eight candidates, so the other half has those of another block: lane l is candidate
 * l / 4 * 2 + l % 2 of block l / 2 % 2. Effort best has sixteen of one block. */

#define PAIR(i)  SEARCH_FIRST + (i)*SEARCH_STEP, SEARCH_FIRST + ((i) + 1) * SEARCH_STEP
#define EIGHT(i) (i), (i) + 1, (i) + 2, (i) + 3, (i) + 4, (i) + 5, (i) + 6, (i) + 7
static const int32_t search_offset[16] = { PAIR(0), PAIR(0), PAIR(2), PAIR(2), PAIR(4), PAIR(4), PAIR(6), PAIR(6) };
static const int32_t best_offset[16] = { EIGHT(BEST_FIRST), EIGHT(BEST_FIRST + 8) };
static const uint32_t lane_is_second[16] = { 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1 };

KVT_LANES mask16 is_second(void)
{
    return i32x16_gt(i32x16_load(lane_is_second), i32x16_set1(0));
}

KVT_LANES i32x16 of_both(uint32_t first, uint32_t second)
{
    return i32x16_select(is_second(), i32x16_set1(second), i32x16_set1(first));
}

KVT_LANES void words_of_row(block_words *x, uint32_t half, const uint8_t *row, uint32_t begin, uint32_t end, float p)
{
    for (uint32_t g = begin; g < end; g++) {
        uint8_t words[32];
        i32x16_store_u16(words, encode(f32x16_load(row + (size_t)g * 64), f32x16_set1(p)));
        for (uint32_t i = 0; i < 4; i++)
            x->words[4 * (g - begin) + i][half] = u8x64_load_eighth(words + 8 * i);
    }
}

/* The greatest of each half's lanes, in all of them; as unsigned integers. */
KVT_LANES i32x16 greatest_of_halves(i32x16 x, bool is_pair)
{
    const i32x16 zero = i32x16_set1(0);
    const i32x16 first = is_pair ? i32x16_select(is_second(), zero, x) : x, second = is_pair ? i32x16_select(is_second(), x, zero) : x;
    const i32x16 both[4] = { first, second, first, second };
    uint32_t greatest[4];
    quad_max_u(both, greatest);
    return of_both(greatest[0], greatest[1]);
}

/* As `search`, but all candidates at once. */
KVT_LANES i32x16 search_row(const nearest *near, bool is_first, bool is_best, const block_words *x, uint32_t quads, const block_grid *grid)
{
    const i32x16 offset = i32x16_load(is_best ? best_offset : search_offset), index = limited(i32x16_add(grid->index, offset), grid->low, grid->high);
    const f32x16 g = f32x16_mul(scale_at(is_first, index), grid->p);
    const block_sums s = sums_of(near, x, quads, factor_of(g));
    const i32x16 one = i32x16_set1(1), zero = i32x16_set1(0);
    i32x16 gain = i32x16_from_f32_bits(gain_of(g, s.a, s.n)), choice = i32x16_shl(index, 1);
    if (!is_first) {
        const f32x16 gain_neg = gain_of(g, s.a_neg, s.n_neg);
        const mask16 is_better = f32x16_gt(gain_neg, f32x16_from_bits(gain));
        gain = i32x16_select(is_better, i32x16_from_f32_bits(gain_neg), gain);
        choice = i32x16_select(is_better, i32x16_or(choice, one), choice);
    }
    /* Unsigned integers in the order of the gains, with one zero; of equal gains the first candidate counts, which has the smallest index. */
    gain = i32x16_from_f32_bits(f32x16_add(f32x16_from_bits(gain), f32x16_set1(0)));
    const i32x16 order = i32x16_select(i32x16_gt(zero, gain), i32x16_xor(gain, i32x16_set1(UINT32_MAX)), i32x16_or(gain, i32x16_set1(0x80000000)));
    const i32x16 behind = i32x16_sub(greatest_of_halves(order, !is_best), order);
    const mask16 is_behind = i32x16_gt(i32x16_or(i32x16_shr(behind, 1), i32x16_and(behind, one)), zero);
    const i32x16 candidate = i32x16_select(is_behind, zero, i32x16_sub(i32x16_set1(UINT32_MAX), choice));
    const i32x16 chosen = i32x16_sub(i32x16_set1(UINT32_MAX), greatest_of_halves(candidate, !is_best));
    return i32x16_or(i32x16_shr(chosen, 1), i32x16_shl(chosen, 31));
}

/* One block, or two of the same length. */
KVT_LANES void choose_scales_of_row(const nearest *near, bool is_first, uint32_t blocks, uint8_t *scale, kvt_effort effort, uint32_t begin,
                                    uint32_t groups, const uint8_t *row, row_state *state, const uint32_t *largest, float *r)
{
    const bool is_best = effort == KVT_EFFORT_BEST;
    const uint32_t last = blocks - 1;
    const i32x16 signed_largest = of_both(largest[0], largest[last]);
    const block_grid grid = grid_of(is_first, state, signed_largest);
    float p[16], multipliers[16];
    uint8_t stored[16];
    block_words x;
    f32x16_store(p, grid.p);
    words_of_row(&x, 0, row, begin, begin + groups, p[0]);
    words_of_row(&x, 1, row, begin + last * BLOCK_GROUPS, begin + last * BLOCK_GROUPS + groups, p[2]);
    const i32x16 chosen =
        effort == KVT_EFFORT_FAST ? fit(near, is_first, &x, 4 * groups, &grid) : search_row(near, is_first, is_best, &x, 4 * groups, &grid);
    f32x16 multiplier;
    i32x16_store_u8(stored, settle(is_first, state, &grid, signed_largest, chosen, &multiplier));
    f32x16_store(multipliers, multiplier);
    for (uint32_t k = 0; k < blocks; k++) {
        scale[k * KVT_TILE_TOKENS] = stored[2 * k];
        r[k] = multipliers[2 * k];
    }
}

KVT_ONCE bool choose_row_scales(kvt_dtype dtype, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const uint8_t *row, uint32_t token,
                                float *r)
{
    (void)dtype;
    const uint32_t blocks = (groups + BLOCK_GROUPS - 1) / BLOCK_GROUPS;
    uint32_t largest[MAX_BLOCKS + 3], of_row = 0;
    for (uint32_t b = 0; b < blocks; b += BLOCKS_AT_ONCE)
        largest_of_row(row, KVT_F32, b * BLOCK_GROUPS, groups, BLOCK_GROUPS, largest + b);
    for (uint32_t b = 0; b < blocks; b++)
        of_row = largest[b] > of_row ? largest[b] : of_row;
    row_state state = start_row(i32x16_set1(of_row >> 1));
    const bool is_nan = mask16_any(state.is_nan);
    if (is_nan) {
        row = kvt_zero_row;
        memset(largest, 0, sizeof largest);
    }
    const nearest near = nearest_make();
    uint8_t *scale = scales + token;
    choose_scales_of_row(&near, true, 1, scale, spec->effort, 0, groups < BLOCK_GROUPS ? groups : BLOCK_GROUPS, row, &state, largest, r);
    for (uint32_t b = 1; b < blocks;) {
        const uint32_t begin = b * BLOCK_GROUPS, left = groups - begin, n = spec->effort != KVT_EFFORT_BEST && left >= 2 * BLOCK_GROUPS ? 2 : 1;
        choose_scales_of_row(&near, false, n, scale + (size_t)b * KVT_TILE_TOKENS, spec->effort, begin, left < BLOCK_GROUPS ? left : BLOCK_GROUPS,
                             row, &state, largest + b, r + b);
        b += n;
    }
    if (is_nan)
        for (uint32_t b = 0; b < blocks; b++)
            r[b] = (float)NAN;
    return is_nan;
}
