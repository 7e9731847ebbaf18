/* SPDX-License-Identifier: MIT */
/* What the CPU and the operating system support, as far as some tier asks for it (isa.def). */
#ifndef KVT_ARCH_CPU_H
#define KVT_ARCH_CPU_H

#include <stddef.h>
#include <stdint.h>

enum {
#if defined(__x86_64__)
    CPU_AVX2 = 1 << 0,
    CPU_FMA = 1 << 1,
    CPU_F16C = 1 << 2,
    CPU_AVX512F = 1 << 3,
    CPU_AVX512BW = 1 << 4,
    CPU_AVX512DQ = 1 << 5,
    CPU_AVX512VL = 1 << 6,
    CPU_AVX512VBMI = 1 << 7,
    CPU_AVX512VNNI = 1 << 8,
    CPU_AVXVNNI = 1 << 9,
#elif defined(__aarch64__)
    CPU_ASIMD = 1 << 0,
    CPU_DOTPROD = 1 << 1,
    CPU_SVE = 1 << 2,
    CPU_SVE256 = 1 << 3, /* the vector length is 256 bits */
    CPU_SVE512 = 1 << 4,
    CPU_I8MM = 1 << 5,
#endif
    CPU_KNOWN = 1 << 30 /* always set: tells a result from the zero before the first look */
};

/* Thread-safe: the first callers may all look, and find the same. */
uint32_t kvt_cpu_detect(void);

#endif
