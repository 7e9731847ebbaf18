/* kv3: 8 levels. docs/formats.md, section 4. */
#define SCHEME    kv3
#define LEVELS    -127, -76, -43, -16, 9, 36, 65, 104
#define MIDPOINTS -4, -60, 50, -102, -30, 22, 84
enum { SEARCH_FIRST = -4, SEARCH_STEP = 1, BEST_FIRST = -8, FAST = 0 };

#include "kernels/table.h"

#include "kernels/op_tile.h"
