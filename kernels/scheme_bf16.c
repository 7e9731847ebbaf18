/* bf16: the upper half of an f32, rounded to nearest even. docs/formats.md, section 4. */
#define SCHEME bf16
#include "kernels/scheme.h"

#define SCHEME_DTYPE KVT_BF16

#include "kernels/op_tile.h"
