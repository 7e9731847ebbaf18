/* kv8: int8 with a scale per row. docs/formats.md, section 4. */
#define SCHEME kv8
#include "kernels/int8.h"

#include "kernels/op_tile.h"
