/* f32: numbers as they are. docs/formats.md, section 4. */
#define SCHEME f32
#include "kernels/scheme.h"

#define SCHEME_DTYPE KVT_F32

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    (void)r;
    return i32x16_from_f32_bits(x);
}

KVT_LANES f32x16 decode(i32x16 code, f32x16 s)
{
    (void)s;
    return f32x16_from_bits(code);
}

#include "kernels/op_tile.h"
