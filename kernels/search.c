/* SPDX-License-Identifier: MIT */
/* The search for the scales of tables (docs/formats.md, section 4; numbers of steps below are its). All of it works on 16 rows or candidates at once,
 * lane by lane. */
#include "kernels/code.h"
#include "kernels/levels.h"
#include "kernels/table_scale.h"

/* 0x35800000 = 2^-20: what is smaller is zero. 0x47800000 = 2^16: what is not smaller cannot be represented. */
#define TINY_BITS 0x35800000u
#define HUGE_BITS 0x47800000u

/* ---- one block of 16 rows, or of one row with 16 candidates (step 5) ---- */

enum { MOST_BLOCK_GROUPS = 2, BLOCK_QUADS = MOST_BLOCK_GROUPS * 4 };

/* X(c), scaled to 12 bits, as halfwords. words[i][h] has channels 4i .. 4i+3 of a lane's row one after the other; h = 0 has lanes 0 and 1 of each
 * quarter, h = 1 lanes 2 and 3. */
typedef struct block_words {
    u8x64 words[BLOCK_QUADS][2];
} block_words;

/* Sums over the block for both signs of a candidate: A as 256 A, and N. */
typedef struct block_sums {
    i32x16 a, n, a_neg, n_neg;
} block_sums;

/* The level that is nearest to each byte, for many of them: where bytes can be looked up in a table of 256, that is made first. `negative` has for y
 * what is nearest to -y, times -1: what a negative scale's y, which is -y, comes to. */
typedef struct nearest {
#ifdef KVT_HAS_LOOKUP256
    u8x64 level[4], negative[4];
#else
    const kvt_table *table;
    levels all;
#endif
} nearest;

KVT_LANES nearest nearest_of(uint32_t bits, const kvt_table *table)
{
    const levels all = load_levels(bits, table, 0);
#ifdef KVT_HAS_LOOKUP256
    nearest n;
    KVT_ROLLED
    for (int i = 0; i < 4; i++) {
        uint8_t y[64];
        KVT_ROLLED
        for (int j = 0; j < 64; j++)
            y[j] = (uint8_t)(64 * i + j);
        n.level[i] = levels_of(bits, &all, codes_of(bits, table, u8x64_load(y)));
        n.negative[i] = u8x64_neg_s8(levels_of(bits, &all, codes_of(bits, table, u8x64_neg_s8(u8x64_load(y)))));
    }
    return n;
#else
    return (nearest){ table, all };
#endif
}

KVT_LANES u8x64 nearest_level(uint32_t bits, const nearest *n, u8x64 y)
{
#ifdef KVT_HAS_LOOKUP256
    (void)bits;
    return u8x64_lookup256(n->level, y);
#else
    return levels_of(bits, &n->all, codes_of(bits, n->table, y));
#endif
}

KVT_LANES void sum_up(u8x64 v, const u8x64 x[2], i32x16 a[2], i32x16 *n)
{
    const u8x64 magnitude = u8x64_abs_s8(v);
    u8x64 half[2];
    u8x64_widen_high_s8(v, half);
    a[0] = i32x16_dot_s16(a[0], x[0], half[0]);
    a[1] = i32x16_dot_s16(a[1], x[1], half[1]);
    *n = i32x16_dot_u7s8(*n, magnitude, magnitude);
}

KVT_LANES u8x64 y_of(const u8x64 x[2], const u8x64 factor[2])
{
    return i16x32_pack_s8(i16x32_mulhrs(x[0], factor[0]), i16x32_mulhrs(x[1], factor[1]));
}

/* For multipliers m of the lanes. A row's first scale is positive: sums of the negative are zeros. (One sign after the other where sums and levels of
 * both would not fit the registers.) */
KVT_LANES void sums_of_both_signs(uint32_t bits, const nearest *near, bool is_first, const block_words *x, uint32_t quads, i32x16 m, block_sums *sums)
{
    const i32x16 zero = i32x16_set1(0);
    i32x16 a[2] = { zero, zero }, a_neg[2] = { zero, zero }, n = zero, n_neg = zero;
    u8x64 factor[2];
    i32x16_twice(i32x16_or(m, i32x16_shl(m, 16)), factor);
#ifdef KVT_HAS_LOOKUP256
    if (is_first) {
        KVT_ROLLED
        for (uint32_t i = 0; i < quads; i++)
            sum_up(nearest_level(bits, near, y_of(x->words[i], factor)), x->words[i], a, &n);
    } else {
        KVT_ROLLED
        for (uint32_t i = 0; i < quads; i++) {
            const u8x64 y = y_of(x->words[i], factor);
            sum_up(nearest_level(bits, near, y), x->words[i], a, &n);
            sum_up(u8x64_lookup256(near->negative, y), x->words[i], a_neg, &n_neg);
        }
    }
    *sums = (block_sums){ i32x16_add_pairs(a[0], a[1]), n, i32x16_add_pairs(a_neg[0], a_neg[1]), n_neg };
#else
    u8x64 y[BLOCK_QUADS];
    KVT_ROLLED
    for (uint32_t i = 0; i < quads; i++) {
        y[i] = y_of(x->words[i], factor);
        sum_up(nearest_level(bits, near, y[i]), x->words[i], a, &n);
    }
    const uint32_t n_negative = is_first ? 0 : quads;
    KVT_ROLLED
    for (uint32_t i = 0; i < n_negative; i++)
        sum_up(nearest_level(bits, near, u8x64_neg_s8(y[i])), x->words[i], a_neg, &n_neg);
    *sums = (block_sums){ i32x16_add_pairs(a[0], a[1]), n, i32x16_sub(zero, i32x16_add_pairs(a_neg[0], a_neg[1])), n_neg };
#endif
}

/* A block, a multiplier and a sign in each lane, and the sums for them. */
typedef struct block_trial {
    block_words x;
    uint32_t quads;
    i32x16 m, is_negative; /* not 0 */
    i32x16 a, n;
} block_trial;

KVT_LANES void try_block(uint32_t bits, const nearest *near, block_trial *trial)
{
    const block_words *x = &trial->x;
    const i32x16 zero = i32x16_set1(0), m = trial->m;
    const mask16 is_negative = i32x16_gt(trial->is_negative, zero);
    i32x16 a[2] = { zero, zero }, n = zero;
    u8x64 factor[2];
    i32x16_twice(i32x16_or(m, i32x16_shl(m, 16)), factor);
    KVT_ROLLED
    for (uint32_t i = 0; i < trial->quads; i++) {
        const u8x64 y = y_of(x->words[i], factor);
        const i32x16 signed_y = i32x16_select(is_negative, i32x16_from_u8(u8x64_neg_s8(y)), i32x16_from_u8(y));
        sum_up(nearest_level(bits, near, u8x64_from_i32(signed_y)), x->words[i], a, &n);
    }
    const i32x16 sum = i32x16_add_pairs(a[0], a[1]);
    trial->a = i32x16_select(is_negative, i32x16_sub(zero, sum), sum);
    trial->n = n;
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

KVT_LANES i32x16 clamped(i32x16 x, i32x16 low, i32x16 high)
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

/* A search in the levels of one table. What depends on the width of codes has a copy for each. */
typedef struct finder finder;
typedef struct width_steps {
    i32x16 (*search)(const finder *f, bool is_first, kvt_effort effort, const block_words *x, uint32_t quads, const block_grid *grid);
    void (*sums)(const finder *f, block_trial *trials, uint32_t count);
#ifdef KVT_HAS_LOOKUP256
    void (*make_nearest)(const kvt_table *table, nearest *n);
#endif
} width_steps;
struct finder {
    const width_steps *width;
    const kvt_table *table;
    uint32_t copies; /* of less than 16 rows: lanes l, l + 16 / copies, ... are the same row with other candidates */
#ifdef KVT_HAS_LOOKUP256
    nearest near;
#endif
};

/* Before a loop, so that it has them in registers. */
KVT_LANES nearest nearest_in(uint32_t bits, const finder *f)
{
#ifdef KVT_HAS_LOOKUP256
    (void)bits;
    return f->near;
#else
    return nearest_of(bits, f->table);
#endif
}

/* Candidates are counted on from copy to copy, `count` in each. */
KVT_ONCE i32x16 offsets_of_copies(const finder *f, int count, int step)
{
    uint32_t offset[16];
    const uint32_t rows = 16 / f->copies;
    for (uint32_t l = 0; l < 16; l++)
        offset[l] = l / rows * (uint32_t)(count * step);
    return i32x16_load(offset);
}

/* The best of a row's copies, in all of them. Of equal gains the first candidate counts. */
KVT_ONCE i32x16 best_of_copies(const finder *f, i32x16 chosen, f32x16 gain)
{
    const uint32_t rows = 16 / f->copies;
    uint32_t choices[32] = { 0 };
    float gains[32] = { 0 };
    for (uint32_t next = rows; next < 16; next *= 2) {
        i32x16_store(choices, chosen);
        f32x16_store(gains, gain);
        const f32x16 other = f32x16_load(gains + next);
        const mask16 is_better = f32x16_gt(other, gain);
        chosen = i32x16_select(is_better, i32x16_load(choices + next), chosen);
        gain = f32x16_from_bits(i32x16_select(is_better, i32x16_from_f32_bits(other), i32x16_from_f32_bits(gain)));
    }
    i32x16_store(choices, chosen);
    for (uint32_t l = rows; l < 16; l++)
        choices[l] = choices[l - rows];
    return i32x16_load(choices);
}

KVT_LANES i32x16 search_block(uint32_t bits, const finder *f, bool is_first, kvt_effort effort, const block_words *x, uint32_t quads,
                              const block_grid *grid)
{
    const int count = (effort == KVT_EFFORT_BEST ? 16 : 8) / (int)f->copies,
              first = effort == KVT_EFFORT_BEST ? f->table->best_first : f->table->search_first,
              step = effort == KVT_EFFORT_BEST ? 1 : f->table->search_step;
    const nearest near = nearest_in(bits, f);
    const i32x16 start = f->copies > 1 ? i32x16_add(grid->index, offsets_of_copies(f, count, step)) : grid->index;
    i32x16 chosen = i32x16_set1(0);
    f32x16 best = f32x16_set1(-INFINITY);
    KVT_ROLLED
    for (int i = 0; i < count; i++) {
        const i32x16 index = clamped(i32x16_add(start, i32x16_set1((uint32_t)(first + i * step))), grid->low, grid->high);
        const f32x16 g = f32x16_mul(scale_at(is_first, index), grid->p);
        block_sums s;
        sums_of_both_signs(bits, &near, is_first, x, quads, factor_of(g), &s);
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
    return f->copies > 1 ? best_of_copies(f, chosen, best) : chosen;
}

#define WIDTH(bits)                                                                                                                                  \
    KVT_ONCE i32x16 search_##bits(const finder *f, bool is_first, kvt_effort effort, const block_words *x, uint32_t quads, const block_grid *grid)   \
    {                                                                                                                                                \
        return search_block(bits, f, is_first, effort, x, quads, grid);                                                                              \
    }                                                                                                                                                \
    KVT_ONCE void try_##bits(const finder *f, block_trial *trials, uint32_t count)                                                                   \
    {                                                                                                                                                \
        const nearest near = nearest_in(bits, f);                                                                                                    \
        for (uint32_t i = 0; i < count; i++)                                                                                                         \
            try_block(bits, &near, &trials[i]);                                                                                                      \
    }
#ifdef KVT_HAS_LOOKUP256 /* a table of 256 is one whatever it was made from */
#define NEAREST(bits)                                                                                                                                \
    static void nearest_##bits(const kvt_table *table, nearest *n)                                                                                   \
    {                                                                                                                                                \
        *n = nearest_of(bits, table);                                                                                                                \
    }
WIDTH(6)
NEAREST(2)
NEAREST(3)
NEAREST(4)
NEAREST(5)
NEAREST(6)
#define WIDTH_STEPS(bits)                                                                                                                            \
    {                                                                                                                                                \
        search_6, try_6, nearest_##bits                                                                                                              \
    }
#else
WIDTH(2)
WIDTH(3)
WIDTH(4)
WIDTH(5)
WIDTH(6)
#define WIDTH_STEPS(bits)                                                                                                                            \
    {                                                                                                                                                \
        search_##bits, try_##bits                                                                                                                    \
    }
#endif
static const width_steps widths[] = { WIDTH_STEPS(2), WIDTH_STEPS(3), WIDTH_STEPS(4), WIDTH_STEPS(5), WIDTH_STEPS(6) };

KVT_LANES void start_finder(finder *f, const kvt_scheme_code *scheme, uint32_t copies)
{
    f->copies = copies;
    f->width = &widths[scheme->bits - 2];
    f->table = scheme->table;
#ifdef KVT_HAS_LOOKUP256
    f->width->make_nearest(scheme->table, &f->near);
#endif
}

/* Effort fast (step 6), of a trial that has its words. */
KVT_LANES i32x16 fit(const finder *f, bool is_first, block_trial *trial, const block_grid *grid)
{
    const i32x16 zero = i32x16_set1(0), index = clamped(i32x16_add(grid->index, i32x16_set1((uint32_t)f->table->fast)), grid->low, grid->high);
    trial->m = factor_of(f32x16_mul(scale_at(is_first, index), grid->p));
    trial->is_negative = is_first ? zero : grid->is_negative;
    f->width->sums(f, trial, 1);
    const mask16 is_positive = i32x16_gt(trial->a, zero);
    const f32x16 safe_n = f32x16_from_i32(i32x16_select(is_positive, trial->n, i32x16_set1(1)));
    const f32x16 fitted = f32x16_div(f32x16_div(f32x16_mul(f32x16_from_i32(trial->a), f32x16_set1(0x1p-8f)), safe_n), grid->p);
    const i32x16 bits = i32x16_from_f32_bits(fitted);
    const i32x16 rounded = is_first ? i32x16_shr(i32x16_add(bits, i32x16_set1(1u << (FIRST_SHIFT - 1))), FIRST_SHIFT)
                                    : i32x16_shr(i32x16_add(bits, i32x16_set1(1u << (OTHER_SHIFT - 1))), OTHER_SHIFT);
    const i32x16 chosen = i32x16_select(is_positive, clamped(rounded, grid->low, grid->high), index);
    return i32x16_or(chosen, i32x16_select(i32x16_gt(trial->is_negative, zero), i32x16_set1((uint32_t)NEGATIVE), zero));
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

/* Only `low` and `high`. */
KVT_LANES block_grid limits_of(bool is_first, const row_state *row)
{
    return (block_grid){
        .low = is_first ? row->low_of_first : i32x16_add(row->base, i32x16_set1(1)),
        .high = is_first ? i32x16_set1(254 + (FIRST_BIAS << 3)) : i32x16_add(row->base, i32x16_set1(127)),
    };
}

/* `signed_largest`: of the block, as signed_magnitude gives it. */
KVT_LANES block_grid grid_of(bool is_first, const row_state *row, i32x16 signed_largest)
{
    const i32x16 largest = i32x16_max_s(i32x16_shr(signed_largest, 1), i32x16_set1(TINY_BITS)); /* smaller ones are not searched for */
    const i32x16 bits = i32x16_from_f32_bits(over_127(largest));
    block_grid grid = limits_of(is_first, row);
    grid.index = is_first ? i32x16_shr(bits, FIRST_SHIFT) : i32x16_shr(bits, OTHER_SHIFT);
    grid.is_negative = i32x16_shl(i32x16_and(i32x16_xor(signed_largest, i32x16_set1(1)), i32x16_set1(1)), 7);
    grid.p = f32x16_div(f32x16_set1(2047.0f), f32x16_from_bits(largest));
    return grid;
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

KVT_LANES i32x16 words_of(const uint8_t *row, uint32_t g, float p)
{
    return i32x16_from_f32_rne(f32x16_mul(f32x16_load(row + (size_t)g * 64), f32x16_set1(p)));
}

/* (Not inline: gcc 12 for SVE knows no instruction for what it would make of the stores.) */
KVT_ONCE void words_of_tile(block_words *x, const kvt_tile_rows *rows, uint32_t begin, uint32_t end, f32x16 p)
{
    float factor[KVT_TILE_TOKENS];
    f32x16_store(factor, p);
    for (uint32_t g = begin; g < end; g++) {
        u8x64 half[2][4];
        KVT_ROLLED
        for (uint32_t q = 0; q < 4; q++) {
            i32x16 row[4];
            for (uint32_t k = 0; k < 4; k++)
                row[k] = words_of(rows->row[4 * q + k], g, factor[4 * q + k]);
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
KVT_ONCE void choose_block_scales(const finder *f, bool is_first, uint8_t *scale, kvt_effort effort, uint32_t begin, uint32_t end,
                                  const kvt_tile_rows *rows, row_state *state, i32x16 largest, float r[KVT_TILE_TOKENS])
{
    const block_grid grid = grid_of(is_first, state, largest);
    block_trial trial;
    trial.quads = 4 * (end - begin);
    words_of_tile(&trial.x, rows, begin, end, grid.p);
    const i32x16 chosen =
        effort == KVT_EFFORT_FAST ? fit(f, is_first, &trial, &grid) : f->width->search(f, is_first, effort, &trial.x, trial.quads, &grid);
    f32x16 multiplier;
    i32x16_store_u8(scale, settle(is_first, state, &grid, largest, chosen, &multiplier));
    i32x16_store(r, i32x16_select(state->is_nan, i32x16_set1(0x7fc00000), i32x16_from_f32_bits(multiplier)));
}

static const code_steps steps = { .magnitude = signed_magnitude, .has_small_blocks = true };

static bool choose_tile(const kvt_tile_spec *spec, kvt_dtype dtype, uint8_t *scales, const kvt_tile_rows *given, uint32_t quads, kvt_factors *factors)
{
    (void)dtype;
    const uint32_t groups = spec->dim / 16, per_block = spec->block_groups, copies = quads == 1 ? 4 : quads == 2 ? 2 : 1;
    uint32_t largest[KVT_MAX_GROUPS][KVT_TILE_TOKENS];
    kvt_tile_rows rows = *given;
    for (uint32_t t = 16 / copies; t < KVT_TILE_TOKENS; t++)
        rows.row[t] = rows.row[t - 16 / copies];
    largest_of_blocks(&steps, KVT_F32, &rows, 4, groups, per_block, largest);
    i32x16 of_row = i32x16_set1(0);
    for (uint32_t b = 0; b * per_block < groups; b++)
        of_row = i32x16_max_u(of_row, i32x16_load(largest[b]));
    row_state state = start_row(i32x16_shr(of_row, 1));
    const bool has_nan = mask16_any(state.is_nan);
    if (has_nan) {
        uint32_t is_nan[KVT_TILE_TOKENS];
        i32x16_store(is_nan, i32x16_select(state.is_nan, i32x16_set1(1), i32x16_set1(0)));
        for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
            if (is_nan[t])
                rows.row[t] = (const uint8_t *)kvt_zero_row;
        for (uint32_t b = 0; b * per_block < groups; b++)
            i32x16_store(largest[b], i32x16_select(state.is_nan, i32x16_set1(0), i32x16_load(largest[b])));
    }
    finder f;
    start_finder(&f, spec->scheme, copies);
    choose_block_scales(&f, true, scales, spec->effort, 0, groups < per_block ? groups : per_block, &rows, &state, i32x16_load(largest[0]),
                        factors->r[0]);
    for (uint32_t b = 1, begin = per_block; begin < groups; b++, begin += per_block)
        choose_block_scales(&f, false, scales + (size_t)b * KVT_TILE_TOKENS, spec->effort, begin,
                            groups - begin < per_block ? groups : begin + per_block, &rows, &state, i32x16_load(largest[b]), factors->r[b]);
    return has_nan;
}

/* ---- one row: a lane is a candidate ----
 *
 * Lane l is candidate l / 4 * 2 + l % 2 of eight, with the positive scale where l / 2 % 2 is 0 and with the negative one where it is 1; effort best
 * has eight more, in a second turn. A first scale has no sign: the other half of its lanes has the eight more, or the same once again. What needs no
 * candidates is done for all blocks side by side. */

static const uint32_t candidate_numbers[16] = { 0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7 };
static const uint32_t lane_is_second[16] = { 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1 };

KVT_LANES mask16 is_second(void)
{
    return i32x16_gt(i32x16_load(lane_is_second), i32x16_set1(0));
}

/* Of each block; room for whole registers. */
enum { BLOCKS_ROOM = KVT_MAX_GROUPS + 16 };
typedef struct row_blocks {
    uint32_t groups, per_block, blocks; /* groups of the row, of a block */
    uint32_t largest[BLOCKS_ROOM];      /* as signed_magnitude gives it */
    uint32_t index[BLOCKS_ROOM], is_negative[BLOCKS_ROOM];
    uint32_t p[BLOCKS_ROOM]; /* as bits */
    uint32_t choice[BLOCKS_ROOM];
    uint8_t words[KVT_MAX_DIM * 2];
} row_blocks;

KVT_LANES uint32_t groups_of_block(const row_blocks *row, uint32_t b)
{
    const uint32_t left = row->groups - b * row->per_block;
    return left < row->per_block ? left : row->per_block;
}

/* Grids, as those of blocks that are not the first, and X(c). */
KVT_LANES void start_blocks(row_blocks *row, const row_state *state, const uint8_t *x)
{
    for (uint32_t b = 0; b < row->blocks; b += 16) {
        const block_grid grid = grid_of(false, state, i32x16_load(row->largest + b));
        i32x16_store(row->index + b, grid.index);
        i32x16_store(row->is_negative + b, grid.is_negative);
        f32x16_store(row->p + b, grid.p);
        i32x16_store(row->choice + b, i32x16_set1(127 << (23 - OTHER_SHIFT))); /* lanes that are no blocks: some scale */
    }
    KVT_ROLLED
    for (uint32_t g = 0; g < row->groups; g++) {
        float p;
        memcpy(&p, &row->p[g >> __builtin_ctz(row->per_block)], 4);
        i32x16_store_u16(row->words + (size_t)g * 32, words_of(x, g, p));
    }
}

/* Of block a in the first half of the lanes, and of block b in the second. */
KVT_LANES i32x16 of_both(const uint32_t *x, uint32_t a, uint32_t b)
{
    return a == b ? i32x16_set1(x[a]) : i32x16_select(is_second(), i32x16_set1(x[b]), i32x16_set1(x[a]));
}

KVT_LANES block_grid grid_of_both(bool is_first, const row_blocks *row, const row_state *state, uint32_t a, uint32_t b)
{
    const i32x16 index = of_both(row->index, a, b);
    block_grid grid = limits_of(is_first, state);
    grid.index = is_first ? i32x16_shr(index, FIRST_SHIFT - OTHER_SHIFT) : index;
    grid.is_negative = of_both(row->is_negative, a, b);
    grid.p = f32x16_from_bits(of_both(row->p, a, b));
    return grid;
}

KVT_LANES void words_of_both(block_words *x, const row_blocks *row, uint32_t a, uint32_t b, uint32_t quads)
{
    const uint8_t *first = row->words + (size_t)a * row->per_block * 32, *second = row->words + (size_t)b * row->per_block * 32;
    KVT_ROLLED
    for (uint32_t i = 0; i < quads; i++) {
        const u8x64 of_first = u8x64_load_eighth(first + 8 * i), of_second = u8x64_load_eighth(second + 8 * i);
        x->words[i][0] = of_first;
        x->words[i][1] = of_second;
    }
}

/* Effort fast: the choices of block b and, where it is as long and not the first, of the next; returns how many. */
KVT_ONCE uint32_t fit_of_row(const finder *f, bool is_first, row_blocks *row, const row_state *state, uint32_t b)
{
    const uint32_t groups = groups_of_block(row, b), second = b + (!is_first && b + 1 < row->blocks && groups_of_block(row, b + 1) == groups);
    const block_grid grid = grid_of_both(is_first, row, state, b, second);
    block_trial trial;
    uint32_t chosen[16];
    trial.quads = 4 * groups;
    words_of_both(&trial.x, row, b, second, trial.quads);
    i32x16_store(chosen, fit(f, is_first, &trial, &grid));
    row->choice[b] = chosen[0];
    row->choice[second] = chosen[second > b ? 2 : 0];
    return second - b + 1;
}

/* Candidates as unsigned integers in the order of their gains, with one zero; and what each chooses, twice its index and the sign: of equal gains the
 * first candidate counts, which has the smallest. */
typedef struct candidates {
    f32x16 g;
    i32x16 order, choice;
} candidates;

/* `begin`: the number of the first. */
KVT_LANES void start_candidates(candidates *c, block_trial *trial, const finder *f, bool is_first, bool is_best, uint32_t begin,
                                const block_grid *grid)
{
    const i32x16 zero = i32x16_set1(0), half = i32x16_select(is_second(), i32x16_set1(1), zero);
    i32x16 number = i32x16_load(candidate_numbers);
    if (is_first && is_best)
        number = i32x16_or(number, i32x16_shl(half, 3));
    if (!is_best && f->table->search_step == 2)
        number = i32x16_shl(number, 1);
    const uint32_t first = (uint32_t)(is_best ? f->table->best_first : f->table->search_first) + begin;
    const i32x16 index = clamped(i32x16_add(grid->index, i32x16_add(number, i32x16_set1(first))), grid->low, grid->high);
    c->g = f32x16_mul(scale_at(is_first, index), grid->p);
    trial->is_negative = is_first ? zero : half;
    c->choice = i32x16_or(i32x16_shl(index, 1), trial->is_negative);
    trial->m = factor_of(c->g);
}

KVT_LANES void finish_candidates(candidates *c, const block_trial *trial)
{
    const i32x16 gain = i32x16_from_f32_bits(f32x16_add(gain_of(c->g, trial->a, trial->n), f32x16_set1(0)));
    c->order = i32x16_select(i32x16_gt(i32x16_set1(0), gain), i32x16_xor(gain, i32x16_set1(UINT32_MAX)), i32x16_or(gain, i32x16_set1(0x80000000)));
}

/* Of each of `count`, at most four; `are_pairs`: of the first two together, and of the others. */
KVT_LANES void best_of_candidates(const candidates *all, uint32_t count, bool are_pairs, uint32_t choice[4])
{
    const i32x16 zero = i32x16_set1(0);
    uint32_t greatest[4];
    i32x16 x[4] = { zero, zero, zero, zero };
    for (uint32_t i = 0; i < count; i++)
        x[i] = all[i].order;
    quad_max_u(x, greatest);
    KVT_ROLLED
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t other = greatest[are_pairs ? i ^ 1 : i];
        const i32x16 behind = i32x16_sub(i32x16_set1(greatest[i] > other ? greatest[i] : other), all[i].order);
        const mask16 is_behind = i32x16_gt(i32x16_or(i32x16_shr(behind, 1), i32x16_and(behind, i32x16_set1(1))), zero);
        x[i] = i32x16_select(is_behind, zero, i32x16_sub(i32x16_set1(UINT32_MAX), all[i].choice));
    }
    quad_max_u(x, greatest);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t other = greatest[are_pairs ? i ^ 1 : i], twice = UINT32_MAX - (greatest[i] > other ? greatest[i] : other);
        choice[i] = twice >> 1 | twice << 31;
    }
}

/* The choices of some blocks from b on; returns how many. The first block comes alone. */
KVT_ONCE uint32_t search_of_row(const finder *f, bool is_first, bool is_best, row_blocks *row, const row_state *state, uint32_t b)
{
    const bool are_pairs = is_best && !is_first;
    const uint32_t left = row->blocks - b, most = is_first ? 1 : are_pairs ? 2 : 4, n = left < most ? left : most, count = n << are_pairs;
    block_trial trials[4];
    candidates all[4];
    uint32_t choice[4];
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t block = b + (i >> are_pairs);
        const block_grid grid = grid_of_both(is_first, row, state, block, block);
        trials[i].quads = 4 * groups_of_block(row, block);
        words_of_both(&trials[i].x, row, block, block, trials[i].quads);
        start_candidates(&all[i], &trials[i], f, is_first, is_best, are_pairs && i % 2 ? 8 : 0, &grid);
    }
    f->width->sums(f, trials, count);
    for (uint32_t i = 0; i < count; i++)
        finish_candidates(&all[i], &trials[i]);
    best_of_candidates(all, count, are_pairs, choice);
    for (uint32_t i = 0; i < n; i++)
        row->choice[b + i] = choice[i << are_pairs];
    return n;
}

KVT_LANES uint32_t choose_of_row(const finder *f, bool is_first, kvt_effort effort, row_blocks *row, const row_state *state, uint32_t b)
{
    return effort == KVT_EFFORT_FAST ? fit_of_row(f, is_first, row, state, b) : search_of_row(f, is_first, effort == KVT_EFFORT_BEST, row, state, b);
}

static bool choose_row(const kvt_tile_spec *spec, kvt_dtype dtype, uint8_t *scales, const uint8_t *x, uint32_t token, float *r)
{
    (void)dtype;
    row_blocks row;
    row.groups = spec->dim / 16;
    row.per_block = spec->block_groups;
    row.blocks = blocks_in(row.groups, row.per_block);
    uint32_t of_row = 0;
    for (uint32_t b = 0; b < row.blocks; b += 4)
        largest_of_row(&steps, KVT_F32, x, b * row.per_block, row.groups, row.per_block, row.largest + b);
    for (uint32_t b = 0; b < row.blocks; b++)
        of_row = row.largest[b] > of_row ? row.largest[b] : of_row;
    for (uint32_t b = row.blocks; b % 16 != 0; b++)
        row.largest[b] = 0;
    row_state state = start_row(i32x16_set1(of_row >> 1));
    const bool is_nan = mask16_any(state.is_nan);
    if (is_nan) {
        x = (const uint8_t *)kvt_zero_row;
        memset(row.largest, 0, sizeof row.largest);
    }
    finder f;
    start_finder(&f, spec->scheme, 1);
    start_blocks(&row, &state, x);
    choose_of_row(&f, true, spec->effort, &row, &state, 0);
    const block_grid grid = grid_of_both(true, &row, &state, 0, 0);
    f32x16 first_multiplier, multiplier;
    float first_r[16];
    uint8_t first_stored[16], stored[BLOCKS_ROOM];
    i32x16_store_u8(first_stored, settle(true, &state, &grid, i32x16_set1(row.largest[0]), i32x16_set1(row.choice[0]), &first_multiplier));
    f32x16_store(first_r, first_multiplier);
    for (uint32_t b = 1; b < row.blocks;)
        b += choose_of_row(&f, false, spec->effort, &row, &state, b);
    for (uint32_t b = 0; b < row.blocks; b += 16) {
        block_grid others = limits_of(false, &state);
        others.index = i32x16_load(row.index + b);
        i32x16_store_u8(stored + b, settle(false, &state, &others, i32x16_load(row.largest + b), i32x16_load(row.choice + b), &multiplier));
        f32x16_store(r + b, multiplier);
    }
    stored[0] = first_stored[0];
    r[0] = first_r[0];
    for (uint32_t b = 0; b < row.blocks; b++) {
        scales[b * KVT_TILE_TOKENS + token] = stored[b];
        if (is_nan)
            r[b] = (float)NAN;
    }
    return is_nan;
}

extern const kvt_search KVT_EXPORT(search);
const kvt_search KVT_EXPORT(search) = { .choose = choose_tile, .choose_row = choose_row };
