/* e4m3: OCP FP8 without infinity. docs/formats.md, section 4. */
#define SCHEME e4m3
#define SCHEME_COPIES_CODES
#include "kernels/scheme.h"

#define MAX_FP8          448.0f
#define narrow_magnitude narrow_e4m3_magnitude
#define load_fp8         f32x16_load_e4m3
#define load_fp8_line    f32x16_load_line_e4m3
#define LEAST_ENCODED    0x0d800000 /* 2^-100 */
enum { FIRST_SPECIAL = 0x7f, HAS_INFINITY = 0, NAN_CODE = 0x7f };
#include "kernels/fp8.h"

#include "kernels/op_tile.h"
