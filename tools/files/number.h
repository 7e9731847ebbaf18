/* SPDX-License-Identifier: MIT */
/* Numbers in files: little-endian integers at any address, and the 16-bit float formats. And what two whole numbers share. */
#ifndef KVT_TOOLS_NUMBER_H
#define KVT_TOOLS_NUMBER_H

#include <stdint.h>
#include <string.h>

/* Rows are handed to the library as they lie in the file. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files hold little-endian numbers");

static inline uint16_t load_u16(const void *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline uint32_t load_u32(const void *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline int32_t load_i32(const void *bytes)
{
    int32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline uint64_t load_u64(const void *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline float load_float(const void *bytes)
{
    float value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline float bf16_to_f32(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    return load_float(&bits);
}

static inline float f16_to_f32(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 0x1f;
    const uint32_t fraction = half & 0x3ff;
    if (exponent == 0) {
        const float magnitude = (float)fraction * 0x1p-24f; /* exact: zero or subnormal */
        return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + (127 - 15);
    const uint32_t bits = sign | wide_exponent << 23 | fraction << 13;
    return load_float(&bits);
}

/* Rounds to nearest even; too large becomes infinity, NaN a quiet NaN. */
static inline uint16_t f32_to_f16(float value)
{
    const uint32_t bits = load_u32(&value);
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000) {
        half = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    } else if (magnitude >= 0x477ff000) { /* 65520 */
        half = 0x7c00;
    } else if (magnitude >= 0x38800000) { /* 2^-14, the smallest normal number */
        half = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    } else {
        /* Adding 0.5 leaves the low bits of the sum's fraction in steps of 2^-24, rounded by the addition. */
        const float sum = load_float(&magnitude) + 0.5f;
        half = load_u32(&sum) - 0x3f000000;
    }
    return (uint16_t)(sign | half);
}

/* The greatest one. Where a number is 0, the other. */
static inline uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

#endif
