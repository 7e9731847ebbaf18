/* q8_0: ggml's 8-bit grid. docs/formats.md, section 4. */
#define SCHEME q8_0
#define SCHEME_COPIES_CODES
#include "kernels/int8.h"

#include "kernels/op_tile.h"
