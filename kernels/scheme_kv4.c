/* kv4: 16 levels. docs/formats.md, section 4. */
#define SCHEME    kv4
#define LEVELS    -127, -92, -73, -56, -41, -28, -15, -4, 7, 18, 29, 42, 55, 70, 89, 112
#define MIDPOINTS 1, -49, 48, -83, -22, 23, 79, -110, -65, -35, -10, 12, 35, 62, 100
enum { SEARCH_FIRST = -3, SEARCH_STEP = 1, BEST_FIRST = -8, FAST = 0 };

#include "kernels/table.h"

#include "kernels/op_tile.h"
