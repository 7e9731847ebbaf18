/* f16: IEEE binary16, rounded to nearest even. docs/formats.md, section 4. */
#define SCHEME f16
#include "kernels/scheme.h"

#define SCHEME_DTYPE KVT_F16

#include "kernels/op_tile.h"
