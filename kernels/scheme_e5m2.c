/* e5m2: OCP FP8 with infinities, the upper half of binary16. docs/formats.md, section 4. */
#define SCHEME e5m2
#include "kernels/scheme.h"

#define MAX_FP8          57344.0f
#define narrow_magnitude narrow_e5m2_magnitude
#define load_fp8         f32x16_load_e5m2
#define load_fp8_line    f32x16_load_line_e5m2
#define LEAST_SCALE      0x08800000 /* 2^-110: times the smallest code is no subnormal number */
#define LEAST_ENCODED    0x11800000 /* 2^-92 */
enum { FIRST_SPECIAL = 0x7c, HAS_INFINITY = 1, NAN_CODE = 0x7e };
#include "kernels/fp8.h"

#include "kernels/op_tile.h"
