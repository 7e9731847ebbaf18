/* SPDX-License-Identifier: MIT */
/* See arithmetic.h. Bodies are written once, with lanes of 16 numbers, and compiled for what CPUs have; products and sums are rounded by themselves
 * (-ffp-contract=off), so all give the same bits. */
#include "tools/engine/arithmetic.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* A loop whose numbers are constants where it is used, so that its arrays are registers. */
#ifdef __clang__
/* A loop that cannot be unrolled, as under sanitizers, is no defect. */
#pragma clang diagnostic ignored "-Wpass-failed"
/* Vectors are passed among functions of this file alone. */
#pragma clang diagnostic ignored "-Wpsabi"
#define UNROLLED(...) _Pragma("clang loop unroll(full)") for (__VA_ARGS__)
#else
#define UNROLLED(...) _Pragma("GCC unroll 16") for (__VA_ARGS__)
#endif

/* AVX-512's lanes are a register; gcc would load them for each use. `sums`: as many are added up at once only there. */
#if defined(__x86_64__) && defined(__OPTIMIZE__) && !defined(__clang__)
#define IN_REGISTER(x, sums)                                                                                                                         \
    do {                                                                                                                                             \
        if ((sums) == 8)                                                                                                                             \
            __asm__("" : "+v"(x));                                                                                                                   \
    } while (0)
#else
#define IN_REGISTER(x, sums) (void)(sums)
#endif

typedef float lanes __attribute__((vector_size(4 * ARITHMETIC_LANES), aligned(64), may_alias));
typedef int32_t lanes_mask __attribute__((vector_size(4 * ARITHMETIC_LANES), aligned(64), may_alias));

/* How much of a loop is in registers: rows of the matrix, and of the eight sums those that are added up at once. */
typedef struct shape {
    size_t rows, sums;
} shape;

/* ---- exp ---- */

/* Lanes of double, where sums over many numbers are small. */
enum { WIDE = 8 };
typedef double wide __attribute__((vector_size(8 * WIDE), aligned(64)));
typedef int64_t wide_bits __attribute__((vector_size(8 * WIDE), aligned(64)));
typedef float narrow __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

#define WIDE_CHOSEN(mask, first, second) ((wide)(((wide_bits)(first) & (mask)) | ((wide_bits)(second) & ~(mask))))

/* *x = exp(*x) to a few units of the last place; beyond +-700 that of +-700. */
INLINE void exp_wide(wide *x)
{
    const wide zero = { 0 }, most = zero + 700, least = zero - 700, magic = zero + 0x1.8p52;
    wide y = *x;
    y = WIDE_CHOSEN(y > most, most, y); /* NaN stays */
    y = WIDE_CHOSEN(y < least, least, y);
    const wide rounded = y * 0x1.71547652b82fep0 + magic, k = rounded - magic;
    const wide r = (y - k * 0x1.62e42fefa38p-1) - k * 0x1.ef35793c7673p-45; /* ln 2 in two parts */
    wide sum = zero + 1.0 / 6227020800;                                     /* Taylor's series, |r| <= 0.35 */
    sum = sum * r + 1.0 / 479001600;
    sum = sum * r + 1.0 / 39916800;
    sum = sum * r + 1.0 / 3628800;
    sum = sum * r + 1.0 / 362880;
    sum = sum * r + 1.0 / 40320;
    sum = sum * r + 1.0 / 5040;
    sum = sum * r + 1.0 / 720;
    sum = sum * r + 1.0 / 120;
    sum = sum * r + 1.0 / 24;
    sum = sum * r + 1.0 / 6;
    sum = sum * r + 0.5;
    sum = sum * r + 1;
    sum = sum * r + 1;
    *x = sum * (wide)(((wide_bits)rounded + 1023) << 52); /* the lowest bits of `rounded` are k */
}

/* Eight numbers, or fewer and zeros. */
INLINE wide load_wide(const float *x, size_t n)
{
    if (n >= WIDE)
        return __builtin_convertvector(*(const narrow *)x, wide);
    wide some = { 0 };
    for (size_t i = 0; i < n; i++)
        some[i] = (double)x[i];
    return some;
}

INLINE void store_wide(float *to, wide x, size_t n)
{
    if (n >= WIDE)
        *(narrow *)to = __builtin_convertvector(x, narrow);
    for (size_t i = 0; i < n && n < WIDE; i++)
        to[i] = (float)x[i];
}

/* ---- products ---- */

/* Of eight sums. */
#define ADD_UP(s) ((((s)[0] + (s)[4]) + ((s)[2] + (s)[6])) + (((s)[1] + (s)[5]) + ((s)[3] + (s)[7])))
enum { SUMS = 8 };

INLINE float dot(const float *a, const float *b, size_t n)
{
    narrow sums = { 0 };
    size_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        sums += *(const narrow *)(a + i) * *(const narrow *)(b + i);
    for (; i < n; i++)
        sums[0] += a[i] * b[i];
    return ADD_UP(sums);
}

float arithmetic_dot(const float *a, const float *b, size_t n)
{
    return dot(a, b, n);
}

bool arithmetic_are_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Rows of a matrix times 16 columns, [columns] lanes. `rows` is a constant. */
INLINE void multiply_lanes(lanes *out, const float *matrix, size_t rows, size_t at_once, size_t columns, const lanes *in)
{
    lanes sums[4][SUMS];
    const size_t whole = columns / SUMS * SUMS;
    UNROLLED(size_t s = 0; s < SUMS; s += at_once)
    {
        lanes some[4][SUMS] = { { { 0 } } };
        for (size_t c = s; c < whole; c += SUMS)
            UNROLLED(size_t i = 0; i < at_once; i++)
            {
                lanes x = in[c + i];
                IN_REGISTER(x, at_once);
                UNROLLED(size_t r = 0; r < rows; r++)
                some[r][i] += matrix[r * columns + c + i] * x;
            }
        UNROLLED(size_t r = 0; r < rows; r++)
        UNROLLED(size_t i = 0; i < at_once; i++)
        sums[r][s + i] = some[r][i];
    }
    UNROLLED(size_t r = 0; r < rows; r++)
    {
        for (size_t c = whole; c < columns; c++)
            sums[r][0] += matrix[r * columns + c] * in[c];
        out[r] = ADD_UP(sums[r]);
    }
}

/* Any number of rows. */
INLINE void multiply_all(lanes *out, const float *matrix, size_t n_rows, shape in_registers, size_t columns, const lanes *in)
{
    size_t r = 0;
    for (; r + in_registers.rows <= n_rows; r += in_registers.rows)
        multiply_lanes(out + r, matrix + r * columns, in_registers.rows, in_registers.sums, columns, in);
    for (; r < n_rows; r++)
        multiply_lanes(out + r, matrix + r * columns, 1, in_registers.sums, columns, in);
}

enum { LANES = ARITHMETIC_LANES, TILE = 24 /* rows of a matrix that stay in the nearest cache for all lanes */ };

size_t arithmetic_product_scratch(size_t columns, size_t n)
{
    return (n + LANES - 1) / LANES * LANES * columns;
}

void arithmetic_prepare(const arithmetic_product *product)
{
    for (size_t t = 0; t < (product->n + LANES - 1) / LANES * LANES; t++) {
        float *to = product->scratch + t / LANES * LANES * product->columns + t % LANES;
        for (size_t c = 0; c < product->columns; c++)
            to[c * LANES] = t < product->n ? product->in[t * product->columns + c] : 0;
    }
}

INLINE void multiply_one_by_one(const arithmetic_product *product, size_t first, size_t end)
{
    for (size_t i = 0; i < product->n; i++)
        for (size_t r = first; r < end; r++)
            product->out[i * product->out_stride + r] =
                dot(product->matrix + r * product->columns, product->in + i * product->columns, product->columns);
}

INLINE void multiply_tiles(const arithmetic_product *product, size_t first, size_t end, shape in_registers)
{
    lanes tile[TILE];
    for (size_t r = first; r < end; r += TILE) {
        const size_t rows = end - r < TILE ? end - r : TILE;
        for (size_t t = 0; t < product->n; t += LANES) {
            const size_t n = product->n - t < LANES ? product->n - t : LANES;
            multiply_all(tile, product->matrix + r * product->columns, rows, in_registers, product->columns,
                         (const lanes *)(product->scratch + t * product->columns));
            for (size_t i = 0; i < n; i++)
                for (size_t j = 0; j < rows; j++)
                    product->out[(t + i) * product->out_stride + r + j] = tile[j][i];
        }
    }
}

/* ---- attention ---- */

size_t arithmetic_attention_scratch(size_t tokens, size_t head_dim)
{
    return (tokens + head_dim) * LANES;
}

/* Of each lane the first where the mask has ones. */
INLINE lanes chosen(lanes_mask mask, lanes first, lanes second)
{
    return (lanes)(((lanes_mask)first & mask) | ((lanes_mask)second & ~mask));
}

INLINE lanes_mask load_mask(const size_t *numbers)
{
    lanes_mask mask;
    for (size_t i = 0; i < LANES; i++)
        mask[i] = (int32_t)numbers[i];
    return mask;
}

INLINE size_t least_of(const size_t *numbers, size_t n)
{
    size_t least = numbers[0];
    for (size_t i = 1; i < n; i++)
        least = numbers[i] < least ? numbers[i] : least;
    return least;
}

INLINE size_t most_of(const size_t *numbers, size_t n)
{
    size_t most = numbers[0];
    for (size_t i = 1; i < n; i++)
        most = numbers[i] > most ? numbers[i] : most;
    return most;
}

/* Values of some channels: sums over tokens first .. end - 1, in their order. */
enum { CHANNELS = 16 };
INLINE void add_values(lanes *sums, const float *values, size_t channels, size_t first, size_t end, size_t head_dim, const lanes *weights,
                       shape in_registers)
{
    lanes some[CHANNELS];
    for (size_t c = 0; c < channels; c++)
        some[c] = sums[c];
    for (size_t t = first; t < end; t++) {
        lanes weight = weights[t];
        IN_REGISTER(weight, in_registers.sums);
        UNROLLED(size_t c = 0; c < channels; c++)
        some[c] += weight * values[t * head_dim + c];
    }
    for (size_t c = 0; c < channels; c++)
        sums[c] = some[c];
}

/* The same where some lanes see what was kept of a token and others the open row. */
INLINE void add_chosen_values(lanes *sums, const float *kept, const float *open, lanes_mask kept_end, size_t channels, size_t first, size_t end,
                              size_t head_dim, const lanes *weights)
{
    for (size_t t = first; t < end; t++) {
        const lanes_mask is_kept = kept_end > (int32_t)t;
        for (size_t c = 0; c < channels; c++)
            sums[c] += weights[t] * chosen(is_kept, (lanes){ 0 } + kept[t * head_dim + c], (lanes){ 0 } + open[t * head_dim + c]);
    }
}

/* Softmax of the scores of tokens first .. end - 1, where `begin` and `stop` say what each lane sees. */
INLINE void softmax(lanes *scores, size_t first, size_t end, lanes_mask begin, lanes_mask stop, float scale)
{
    const lanes nothing = (lanes){ 0 } - INFINITY;
    lanes largest = nothing, sum = { 0 };
    for (size_t t = first; t < end; t++) {
        scores[t] = chosen((begin <= (int32_t)t) & (stop > (int32_t)t), scores[t] * scale, nothing);
        largest = chosen(scores[t] > largest, scores[t], largest);
    }
    for (size_t t = first; t < end; t++) {
        lanes x = scores[t] - largest;
        float *numbers = (float *)&scores[t];
        memcpy(numbers, &x, sizeof x);
        for (size_t i = 0; i < LANES; i += WIDE) {
            wide part = load_wide(numbers + i, WIDE);
            exp_wide(&part);
            *(narrow *)(numbers + i) = __builtin_convertvector(part, narrow);
        }
        sum += scores[t];
    }
    for (size_t t = first; t < end; t++)
        scores[t] /= sum;
}

INLINE void attend_all(const arithmetic_attention *attention, shape in_registers)
{
    const size_t dim = attention->head_dim, first = least_of(attention->begin, attention->n), end = most_of(attention->end, attention->n);
    lanes *in = (lanes *)attention->scratch, *scores = in + dim;
    size_t sees[4][LANES]; /* begin, end, the ends of kept keys and values */
    for (size_t i = 0; i < LANES; i++) {
        const size_t from = i < attention->n ? i : 0;
        sees[0][i] = attention->begin[from];
        sees[1][i] = attention->end[from];
        sees[2][i] = attention->kept_end[0][from];
        sees[3][i] = attention->kept_end[1][from];
        for (size_t c = 0; c < dim; c++)
            in[c][i] = attention->queries[from][c];
    }
    size_t all_kept = least_of(sees[2], LANES), some_kept = most_of(sees[2], LANES);
    all_kept = all_kept > end ? end : all_kept < first ? first : all_kept;
    multiply_all(scores + first, attention->kept[0] + first * dim, all_kept - first, in_registers, dim, in);
    multiply_all(scores + all_kept, attention->open[0] + all_kept * dim, end - all_kept, in_registers, dim, in);
    for (size_t t = all_kept; t < end && t < some_kept; t++) {
        lanes kept;
        multiply_lanes(&kept, attention->kept[0] + t * dim, 1, in_registers.sums, dim, in);
        scores[t] = chosen(load_mask(sees[2]) > (int32_t)t, kept, scores[t]);
    }
    softmax(scores, first, end, load_mask(sees[0]), load_mask(sees[1]), attention->scale);
    all_kept = least_of(sees[3], LANES);
    all_kept = all_kept > end ? end : all_kept < first ? first : all_kept;
    some_kept = most_of(sees[3], LANES);
    some_kept = some_kept > end ? end : some_kept < all_kept ? all_kept : some_kept;
    for (size_t c = 0; c < dim; c += CHANNELS) {
        lanes sums[CHANNELS] = { { 0 } };
        const float *kept = attention->kept[1] + c, *open = attention->open[1] + c;
        const size_t channels = dim - c < CHANNELS ? dim - c : CHANNELS;
        if (channels == CHANNELS)
            add_values(sums, kept, CHANNELS, first, all_kept, dim, scores, in_registers);
        else
            add_values(sums, kept, channels, first, all_kept, dim, scores, in_registers);
        add_chosen_values(sums, kept, open, load_mask(sees[3]), channels, all_kept, some_kept, dim, scores);
        add_values(sums, open, channels, some_kept, end, dim, scores, in_registers);
        for (size_t i = 0; i < attention->n; i++)
            for (size_t j = 0; j < channels; j++)
                attention->out[i][c + j] = sums[j][i];
    }
}

/* ---- the rest ---- */

INLINE void silu_all(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += WIDE) {
        const wide x = load_wide(gate + i, n - i);
        wide power = -x;
        exp_wide(&power);
        store_wide(gate + i, x / (1 + power) * load_wide(up + i, n - i), n - i);
    }
}

/* By tanh, of which 1 - 2 / (exp(2x) + 1) is another form. */
INLINE void gelu_all(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += WIDE) {
        const wide x = load_wide(gate + i, n - i);
        wide power = 2 * 0.79788456080286535588 * x * (1 + 0.044715 * x * x);
        exp_wide(&power);
        store_wide(gate + i, x * (1 - 1 / (power + 1)) * load_wide(up + i, n - i), n - i);
    }
}

/* What is left over of a sum of eights is added to the first of them. */
INLINE double add_up_wide(wide sums, wide rest, size_t n_rest)
{
    for (size_t i = 0; i < n_rest; i++)
        sums[0] += rest[i];
    return ADD_UP(sums);
}

INLINE double exp_sum_all(const float *x, size_t n, float largest)
{
    wide sums = { 0 }, rest = { 0 };
    for (size_t i = 0; i < n; i += WIDE) {
        rest = load_wide(x + i, n - i) - largest;
        exp_wide(&rest);
        sums = n - i >= WIDE ? sums + rest : sums;
    }
    return add_up_wide(sums, rest, n % WIDE);
}

INLINE double divergence_all(const float *x, const float *y, size_t n, double log_sum)
{
    wide sums = { 0 }, rest = { 0 };
    for (size_t i = 0; i < n; i += WIDE) {
        const wide logits = load_wide(x + i, n - i), other = load_wide(y + i, n - i);
        wide probability = logits - log_sum;
        exp_wide(&probability);
        rest = probability * (logits - other);
        sums = n - i >= WIDE ? sums + rest : sums;
    }
    return add_up_wide(sums, rest, n % WIDE);
}

/* ---- each for what CPUs have ---- */

/* F(suffix, what the compiler may use, rows and sums in registers) */
#if defined(__x86_64__) && defined(__OPTIMIZE__)
#define FOR_EACH_TARGET(F)                                                                                                                           \
    F(avx512, __attribute__((target("avx512f,avx512dq"))), 3, 8)                                                                                     \
    F(avx2, __attribute__((target("avx2"))), 3, 2)                                                                                                   \
    F(plain, , 3, 1)
#define HAS_AVX512 (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
#define CHOOSE(name, ...)                                                                                                                            \
    (HAS_AVX512 ? name##_avx512(__VA_ARGS__) : __builtin_cpu_supports("avx2") ? name##_avx2(__VA_ARGS__) : name##_plain(__VA_ARGS__))
#else
#define FOR_EACH_TARGET(F) F(plain, , 3, 2)
#define CHOOSE(name, ...)  name##_plain(__VA_ARGS__)
#endif

#define DEFINE(suffix, target, rows, sums)                                                                                                           \
    target static void multiply_##suffix(const arithmetic_product *product, size_t first, size_t end)                                                \
    {                                                                                                                                                \
        if (product->scratch != NULL)                                                                                                                \
            multiply_tiles(product, first, end, (shape){ rows, sums });                                                                              \
        else                                                                                                                                         \
            multiply_one_by_one(product, first, end);                                                                                                \
    }                                                                                                                                                \
    target static void attend_##suffix(const arithmetic_attention *attention)                                                                        \
    {                                                                                                                                                \
        attend_all(attention, (shape){ rows, sums });                                                                                                \
    }                                                                                                                                                \
    target static void silu_##suffix(float *gate, const float *up, size_t n)                                                                         \
    {                                                                                                                                                \
        silu_all(gate, up, n);                                                                                                                       \
    }                                                                                                                                                \
    target static void gelu_##suffix(float *gate, const float *up, size_t n)                                                                         \
    {                                                                                                                                                \
        gelu_all(gate, up, n);                                                                                                                       \
    }                                                                                                                                                \
    target static double exp_sum_##suffix(const float *x, size_t n, float largest)                                                                   \
    {                                                                                                                                                \
        return exp_sum_all(x, n, largest);                                                                                                           \
    }                                                                                                                                                \
    target static double divergence_##suffix(const float *x, const float *y, size_t n, double log_sum)                                               \
    {                                                                                                                                                \
        return divergence_all(x, y, n, log_sum);                                                                                                     \
    }
FOR_EACH_TARGET(DEFINE)

void arithmetic_multiply(const arithmetic_product *product, size_t first, size_t end)
{
    CHOOSE(multiply, product, first, end);
}

void arithmetic_attend(const arithmetic_attention *attention)
{
    CHOOSE(attend, attention);
}

void arithmetic_silu(float *gate, const float *up, size_t n)
{
    CHOOSE(silu, gate, up, n);
}

void arithmetic_gelu(float *gate, const float *up, size_t n)
{
    CHOOSE(gelu, gate, up, n);
}

double arithmetic_exp_sum(const float *x, size_t n, float largest)
{
    return CHOOSE(exp_sum, x, n, largest);
}

double arithmetic_divergence(const float *logits, const float *other, size_t n, double log_sum, double other_log_sum)
{
    const double divergence = other_log_sum - log_sum + CHOOSE(divergence, logits, other, n, log_sum);
    return divergence < 0 ? 0 : divergence; /* rounding */
}
