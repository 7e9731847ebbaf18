/* SPDX-License-Identifier: MIT */
/* Compiled once per tier, with its lanes and flags: the instructions that its dot_add and f32x16_fma are made of (arch/<folder>/vec.h), on registers
 * alone and with ten sums side by side, so that nobody waits for a sum. Loads, widening and spreading are not in them. */
#include "vec.h"

#include <stddef.h>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#define PASTE_(a, b) a##b
#define PASTE(a, b)  PASTE_(a, b)
#define DOTS         PASTE(multiply_dots_, KVT_TIER)
#define FLOATS       PASTE(multiply_floats_, KVT_TIER)
#define DOT_BITS     PASTE(multiply_dot_bits_, KVT_TIER)

extern const unsigned DOT_BITS;
void DOTS(size_t lines);
void FLOATS(size_t lines);

const unsigned DOT_BITS = KVT_DOT_BITS;

enum { SUMS = 10 };

/* As assembly, so that no multiplication is moved out of the loop or left out. PER_LINE: of a line of 64 bytes, or 16 floats. */
#if defined(__AVX512F__)
typedef __m512i dot_register;
typedef __m512 float_register;
#if defined(__AVX512VNNI__)
#define DOT(sum, x) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(x))
enum { DOTS_PER_LINE = 1 };
#else
/* even and odd bytes */
#define DOT(sum, x)                                                                                                                                  \
    {                                                                                                                                                \
        dot_register product;                                                                                                                        \
        __asm__ volatile("vpmaddwd %2, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(product) : "v"(x));                                           \
    }
enum { DOTS_PER_LINE = 2 };
#endif
#define FMA(sum, x) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(sum) : "v"(x))
enum { FMAS_PER_LINE = 1 };
#elif defined(__AVX2__)
typedef __m256i dot_register;
typedef __m256 float_register;
#define FMA(sum, x) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+x"(sum) : "x"(x))
enum { FMAS_PER_LINE = 2 };
#if defined(__AVXVNNI__)
#define DOT(sum, x) __asm__ volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(sum) : "x"(x))
enum { DOTS_PER_LINE = 2 };
#else
/* even and odd bytes of two halves */
#define DOT(sum, x)                                                                                                                                  \
    {                                                                                                                                                \
        dot_register product;                                                                                                                        \
        __asm__ volatile("vpmaddwd %2, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(x));                                           \
    }
enum { DOTS_PER_LINE = 4 };
#endif
#elif defined(__ARM_FEATURE_SVE)
/* without a fixed length, as clang's assembly takes no others */
typedef svint32_t dot_register;
typedef svfloat32_t float_register;
#define NO_DOTS     svdup_s32(0)
#define NO_FLOATS   svdup_f32(0)
#define DOT(sum, x) __asm__ volatile("sdot %0.s, %1.b, %1.b" : "+w"(sum) : "w"(x))
#define FMA(sum, x) __asm__ volatile("fmla %0.s, %2/m, %1.s, %1.s" : "+w"(sum) : "w"(x), "Upl"(svptrue_b32()))
enum { DOTS_PER_LINE = 512 / __ARM_FEATURE_SVE_BITS, FMAS_PER_LINE = DOTS_PER_LINE };
#elif defined(__aarch64__)
typedef int32x4_t dot_register;
typedef float32x4_t float_register;
#if defined(__ARM_FEATURE_MATMUL_INT8)
/* of two rows or terms at once; a row alone that has one term takes sdot */
#define DOT(sum, x) __asm__ volatile("smmla %0.4s, %1.16b, %1.16b" : "+w"(sum) : "w"(x))
enum { DOTS_PER_LINE = 2 };
#elif defined(__ARM_FEATURE_DOTPROD)
#define DOT(sum, x) __asm__ volatile("sdot %0.4s, %1.16b, %1.16b" : "+w"(sum) : "w"(x))
enum { DOTS_PER_LINE = 4 };
#else
/* the low and the high half of four registers */
#define DOT(sum, x)                                                                                                                                  \
    {                                                                                                                                                \
        dot_register product;                                                                                                                        \
        __asm__ volatile("smull %1.8h, %2.8b, %2.8b\n\tsadalp %0.4s, %1.8h" : "+w"(sum), "=&w"(product) : "w"(x));                                   \
    }
enum { DOTS_PER_LINE = 8 };
#endif
#define FMA(sum, x) __asm__ volatile("fmla %0.4s, %1.4s, %1.4s" : "+w"(sum) : "w"(x))
enum { FMAS_PER_LINE = 4 };
#endif

#if !defined(NO_DOTS)
#define NO_DOTS                                                                                                                                      \
    {                                                                                                                                                \
        0                                                                                                                                            \
    }
#define NO_FLOATS NO_DOTS
#endif

#if defined(DOT)
#define TEN_TIMES(do_to, x)                                                                                                                          \
    do_to(sum0, x);                                                                                                                                  \
    do_to(sum1, x);                                                                                                                                  \
    do_to(sum2, x);                                                                                                                                  \
    do_to(sum3, x);                                                                                                                                  \
    do_to(sum4, x);                                                                                                                                  \
    do_to(sum5, x);                                                                                                                                  \
    do_to(sum6, x);                                                                                                                                  \
    do_to(sum7, x);                                                                                                                                  \
    do_to(sum8, x);                                                                                                                                  \
    do_to(sum9, x)

void DOTS(size_t lines)
{
    dot_register x = NO_DOTS;
    dot_register sum0 = x, sum1 = x, sum2 = x, sum3 = x, sum4 = x, sum5 = x, sum6 = x, sum7 = x, sum8 = x, sum9 = x;
    for (size_t i = 0; i < lines * DOTS_PER_LINE; i += SUMS) {
        TEN_TIMES(DOT, x);
    }
}

void FLOATS(size_t lines)
{
    float_register x = NO_FLOATS;
    float_register sum0 = x, sum1 = x, sum2 = x, sum3 = x, sum4 = x, sum5 = x, sum6 = x, sum7 = x, sum8 = x, sum9 = x;
    for (size_t i = 0; i < lines * FMAS_PER_LINE; i += SUMS) {
        TEN_TIMES(FMA, x);
    }
}
#else
void DOTS(size_t lines)
{
    (void)lines;
}
void FLOATS(size_t lines)
{
    (void)lines;
}
#endif
