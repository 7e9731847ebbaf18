/* SPDX-License-Identifier: MIT */
/* Compiled once per tier, with its flags, which say how wide a vector is; floor_choose.c takes the widest that the CPU has. */
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
typedef uint64_t vector __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint64_t vector_register __attribute__((vector_size(64)));
#define IN_REGISTER "+v"
#elif defined(__AVX2__)
typedef uint64_t vector __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint64_t vector_register __attribute__((vector_size(32)));
#define IN_REGISTER "+x"
#else
typedef uint64_t vector __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t vector_register __attribute__((vector_size(16)));
#if defined(__x86_64__)
#define IN_REGISTER "+x"
#elif defined(__aarch64__)
#define IN_REGISTER "+w"
#else
#define IN_REGISTER "+m"
#endif
#endif

enum { LINE = 64, PARTS = LINE / sizeof(vector) };

#define PASTE_(a, b) a##b
#define PASTE(a, b)  PASTE_(a, b)
#define FLOOR        PASTE(floor_move_, KVT_TIER)

void FLOOR(const void *in, size_t in_lines, void *out, size_t out_lines);

void FLOOR(const void *in, size_t in_lines, void *out, size_t out_lines)
{
    /* Steps of about four lines of the shorter stream; where both stand after each is kept in 32.32 fixed point. */
    const size_t fewer = in_lines < out_lines ? in_lines : out_lines;
    const size_t steps = fewer / 4 > 0 ? fewer / 4 : 1;
    const uint64_t in_step = ((uint64_t)in_lines << 32) / steps;
    const uint64_t out_step = ((uint64_t)out_lines << 32) / steps;
    const vector *from = in;
    vector *to = out;
    vector_register last = { 0 };
    uint64_t in_place = 0;
    uint64_t out_place = 0;
    size_t i = 0;
    size_t o = 0;
    for (size_t step = 1; step <= steps; step++) {
        in_place += in_step;
        out_place += out_step;
        const size_t in_end = step < steps ? (size_t)(in_place >> 32) : in_lines;
        const size_t out_end = step < steps ? (size_t)(out_place >> 32) : out_lines;
        for (; i < in_end; i++) {
            for (size_t part = 0; part < PARTS; part++) {
                last = from[i * PARTS + part];
                __asm__ volatile("" : IN_REGISTER(last)); /* the load has to happen */
            }
        }
        for (; o < out_end; o++) {
            for (size_t part = 0; part < PARTS; part++)
                to[o * PARTS + part] = last;
        }
    }
    __asm__ volatile("" : : "r"(out) : "memory"); /* and so do the stores */
}
