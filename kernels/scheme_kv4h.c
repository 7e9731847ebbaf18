/* kv4h: 16 levels for blocks of 16. docs/formats.md, section 4. */
#define SCHEME    kv4h
#define LEVELS    -127, -88, -69, -54, -41, -28, -15, -4, 7, 18, 29, 42, 57, 72, 91, 114
#define MIDPOINTS 1, -48, 49, -79, -22, 23, 81, -108, -62, -35, -10, 12, 35, 64, 102
enum { SEARCH_FIRST = -1, SEARCH_STEP = 1, BEST_FIRST = -8, FAST = 0 };

#include "kernels/table.h"

#include "kernels/op_tile.h"
