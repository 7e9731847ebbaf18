/* SPDX-License-Identifier: MIT */
/* Numbers that are stored in a format which rows may have: f32, f16, bf16, rounded to nearest even. docs/formats.md, section 4. */
#include "kernels/lanes.h"

/* Of numbers, without a call of memcpy, which compilers like to make of such a loop: it would cost more than a row. */
KVT_LANES void copy_groups(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t i = 0;
    for (; i + 64 <= bytes; i += 64) {
        u8x64_store(to + i, u8x64_load(from + i));
        __asm__ volatile("");
    }
    for (; i < bytes; i += 16) {
        memcpy(to + i, from + i, 16);
        __asm__ volatile("");
    }
}

KVT_LANES void convert_row(kvt_dtype to_dtype, kvt_dtype from_dtype, uint8_t *to, const uint8_t *from, uint32_t groups)
{
    if (to_dtype == from_dtype) {
        copy_groups(to, from, (size_t)groups * 16 * number_bytes(to_dtype));
        return;
    }
    for (uint32_t g = 0; g < groups; g++)
        store_number(to + (size_t)g * 16 * number_bytes(to_dtype), to_dtype,
                     load_number(from + (size_t)g * 16 * number_bytes(from_dtype), from_dtype));
}

KVT_LANES void convert_in(kvt_dtype stored, kvt_dtype dtype, const uint8_t *const *rows, uint32_t n, uint32_t begin, uint32_t end, uint8_t *codes,
                          size_t stride)
{
    for (uint32_t t = 0; t < n; t++)
        convert_row(stored, dtype, codes + t * stride, rows[t] + (size_t)begin * 16 * number_bytes(dtype), end - begin);
}

KVT_LANES void convert_out(kvt_dtype stored, kvt_dtype dtype, const uint8_t *codes, size_t stride, uint32_t n, uint32_t begin, uint32_t end,
                           uint8_t *rows, ptrdiff_t row_stride)
{
    for (uint32_t t = 0; t < n; t++)
        convert_row(dtype, stored, rows + (ptrdiff_t)t * row_stride + (size_t)begin * 16 * number_bytes(dtype), codes + t * stride, end - begin);
}

#define NUMBERS_OF(name, stored)                                                                                                                     \
    static void encode_##name(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *const *rows, uint32_t n, ptrdiff_t ahead, uint32_t begin,   \
                              uint32_t end, const float *r, uint32_t r_stride, bool has_nan, uint8_t *codes, size_t stride)                          \
    {                                                                                                                                                \
        (void)spec, (void)ahead, (void)r, (void)r_stride, (void)has_nan;                                                                             \
        if (dtype == KVT_F32)                                                                                                                        \
            convert_in(stored, KVT_F32, rows, n, begin, end, codes, stride);                                                                         \
        else if (dtype == KVT_F16)                                                                                                                   \
            convert_in(stored, KVT_F16, rows, n, begin, end, codes, stride);                                                                         \
        else                                                                                                                                         \
            convert_in(stored, KVT_BF16, rows, n, begin, end, codes, stride);                                                                        \
    }                                                                                                                                                \
    static void decode_##name(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *codes, size_t stride, uint32_t n, uint32_t begin,           \
                              uint32_t end, const float *scale, uint8_t *rows, ptrdiff_t row_stride)                                                 \
    {                                                                                                                                                \
        (void)spec, (void)scale;                                                                                                                     \
        if (dtype == KVT_F32)                                                                                                                        \
            convert_out(stored, KVT_F32, codes, stride, n, begin, end, rows, row_stride);                                                            \
        else if (dtype == KVT_F16)                                                                                                                   \
            convert_out(stored, KVT_F16, codes, stride, n, begin, end, rows, row_stride);                                                            \
        else                                                                                                                                         \
            convert_out(stored, KVT_BF16, codes, stride, n, begin, end, rows, row_stride);                                                           \
    }                                                                                                                                                \
    extern const kvt_coder KVT_EXPORT(coder_##name);                                                                                                 \
    const kvt_coder KVT_EXPORT(coder_##name) = { .encode = encode_##name, .decode = decode_##name };

NUMBERS_OF(f32, KVT_F32)
NUMBERS_OF(f16, KVT_F16)
NUMBERS_OF(bf16, KVT_BF16)
