/* f32: numbers as they are. docs/formats.md, section 4. */
#define SCHEME f32
#include "kernels/scheme.h"

#define SCHEME_DTYPE KVT_F32

#include "kernels/op_tile.h"
