/* bf16: the upper half of an f32, rounded to nearest even. docs/formats.md, section 4. */
#define SCHEME bf16
#include "kernels/scheme.h"

#define SCHEME_DTYPE KVT_BF16

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    (void)r;
    return narrow_bf16(i32x16_from_f32_bits(x));
}

KVT_LANES f32x16 decode(i32x16 code, f32x16 s)
{
    (void)s;
    return f32x16_from_bits(widen_bf16(code));
}

#include "kernels/op_tile.h"
