/* SPDX-License-Identifier: MIT */
#include "arch/cpu.h"

#include <kvtile/kvtile.h>
#include <stdatomic.h>
#include <stdbool.h>

#if defined(__x86_64__)
#include <cpuid.h>

static const struct feature {
    const char *name;
    uint32_t bit;
} features[] = {
    { "avx2", CPU_AVX2 },
    { "fma", CPU_FMA },
    { "f16c", CPU_F16C },
    { "avxvnni", CPU_AVXVNNI },
    { "avx512f", CPU_AVX512F },
    { "avx512bw", CPU_AVX512BW },
    { "avx512dq", CPU_AVX512DQ },
    { "avx512vl", CPU_AVX512VL },
    { "avx512vbmi", CPU_AVX512VBMI },
    { "avx512vnni", CPU_AVX512VNNI },
};

/* Register state that the operating system saves on a task switch (XCR0). */
enum { XCR0_AVX = 0x06, XCR0_AVX512 = 0xe0 };

static uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static uint32_t find_features(void)
{
    uint32_t eax, ebx, ecx, edx, found = 0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
        return 0;
    const uint64_t xcr0 = read_xcr0();
    if ((xcr0 & XCR0_AVX) != XCR0_AVX)
        return 0;
    found |= ecx & bit_FMA ? CPU_FMA : 0;
    found |= ecx & bit_F16C ? CPU_F16C : 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return found;
    found |= ebx & bit_AVX2 ? CPU_AVX2 : 0;
    if ((xcr0 & XCR0_AVX512) == XCR0_AVX512) {
        found |= ebx & bit_AVX512F ? CPU_AVX512F : 0;
        found |= ebx & bit_AVX512BW ? CPU_AVX512BW : 0;
        found |= ebx & bit_AVX512DQ ? CPU_AVX512DQ : 0;
        found |= ebx & bit_AVX512VL ? CPU_AVX512VL : 0;
        found |= ecx & bit_AVX512VBMI ? CPU_AVX512VBMI : 0;
        found |= ecx & bit_AVX512VNNI ? CPU_AVX512VNNI : 0;
    }
    if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx))
        found |= eax & bit_AVXVNNI ? CPU_AVXVNNI : 0;
    return found;
}

#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

static const struct feature {
    const char *name;
    uint32_t bit;
} features[] = {
    { "asimd", CPU_ASIMD }, { "asimddp", CPU_DOTPROD }, { "i8mm", CPU_I8MM }, { "sve", CPU_SVE }, { "sve256", CPU_SVE256 }, { "sve512", CPU_SVE512 },
};

static uint32_t find_features(void)
{
    const unsigned long hwcap = getauxval(AT_HWCAP);
    uint32_t found = 0;
    found |= hwcap & HWCAP_ASIMD ? CPU_ASIMD : 0;
    found |= hwcap & HWCAP_ASIMDDP ? CPU_DOTPROD : 0;
    found |= getauxval(AT_HWCAP2) & HWCAP2_I8MM ? CPU_I8MM : 0;
    if (hwcap & HWCAP_SVE) {
        /* The SVE tiers are compiled for one vector length each, so it has to be that length exactly. */
        const int vector_bytes = prctl(PR_SVE_GET_VL) & PR_SVE_VL_LEN_MASK;
        found |= CPU_SVE;
        found |= vector_bytes == 32 ? CPU_SVE256 : 0;
        found |= vector_bytes == 64 ? CPU_SVE512 : 0;
    }
    return found;
}

#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

static const struct feature {
    const char *name;
    uint32_t bit;
} features[] = { { "asimd", CPU_ASIMD }, { "asimddp", CPU_DOTPROD }, { "i8mm", CPU_I8MM } };

static bool has(const char *name)
{
    int32_t value = 0;
    size_t bytes = sizeof value;
    return sysctlbyname(name, &value, &bytes, NULL, 0) == 0 && value != 0;
}

static uint32_t find_features(void)
{
    uint32_t found = CPU_ASIMD;
    found |= has("hw.optional.arm.FEAT_DotProd") ? CPU_DOTPROD : 0;
    found |= has("hw.optional.arm.FEAT_I8MM") ? CPU_I8MM : 0;
    return found;
}

#elif defined(__aarch64__)
/* No portable way to ask: what every 64-bit ARM has, and what the compiler was told to take for granted. */
static const struct feature {
    const char *name;
    uint32_t bit;
} features[] = { { "asimd", CPU_ASIMD }, { "asimddp", CPU_DOTPROD }, { "i8mm", CPU_I8MM } };

static uint32_t find_features(void)
{
    uint32_t found = CPU_ASIMD;
#if defined(__ARM_FEATURE_DOTPROD)
    found |= CPU_DOTPROD;
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
    found |= CPU_I8MM;
#endif
    return found;
}

#else
static const struct feature {
    const char *name;
    uint32_t bit;
} features[] = { { "none", 0 } };

static uint32_t find_features(void)
{
    return 0;
}
#endif

uint32_t kvt_cpu_detect(void)
{
    static _Atomic uint32_t cached;
    uint32_t found = atomic_load_explicit(&cached, memory_order_relaxed);
    if (!found) {
        found = find_features() | CPU_KNOWN;
        atomic_store_explicit(&cached, found, memory_order_relaxed);
    }
    return found;
}

const char *kvt_cpu_feature(size_t index)
{
    const uint32_t found = kvt_cpu_detect();
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (found & features[i].bit && index-- == 0)
            return features[i].name;
    return NULL;
}
