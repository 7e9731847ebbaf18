/* q8_0: ggml's 8-bit grid. docs/formats.md, section 4. */
#define SCHEME q8_0
#include "kernels/ggml_scale.h"

#define SCHEME_HAS_SCALES
#define CODES_SIGNED

KVT_LANES i32x16 magnitude(f32x16 x)
{
    return i32x16_and(i32x16_from_f32_bits(x), i32x16_set1(0x7fffffff));
}

KVT_LANES block_scale scale_of(i32x16 largest)
{
    return ggml_scale(f32x16_div(f32x16_from_bits(largest), f32x16_set1(127.0f)));
}

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    return i32x16_from_f32_rne(f32x16_mul(x, r));
}

KVT_LANES f32x16 decode(i32x16 code, f32x16 s)
{
    return f32x16_mul(f32x16_from_i32(code), s);
}

#include "kernels/op_tile.h"
