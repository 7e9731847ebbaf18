/* kv2: 4 levels. docs/formats.md, section 4. */
#define SCHEME    kv2
#define LEVELS    -127, -44, 19, 92
#define MIDPOINTS -13, -86, 55
enum { SEARCH_FIRST = -11, SEARCH_STEP = 2, BEST_FIRST = -12, FAST = 0 };

#include "kernels/table.h"

#include "kernels/op_tile.h"
