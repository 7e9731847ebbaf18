/* f16: IEEE binary16, rounded to nearest even. docs/formats.md, section 4. */
#define SCHEME f16
#include "kernels/scheme.h"

#define SCHEME_DTYPE KVT_F16

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    (void)r;
    return i32x16_narrow_f16(x);
}

KVT_LANES f32x16 decode(i32x16 code, f32x16 s)
{
    (void)s;
    return f32x16_widen_f16(code);
}

#include "kernels/op_tile.h"
