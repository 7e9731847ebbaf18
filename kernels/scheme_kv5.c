/* kv5: 32 levels. docs/formats.md, section 4. */
#define SCHEME kv5
#define LEVELS                                                                                                                                       \
    -127, -116, -101, -88, -77, -68, -59, -52, -45, -38, -31, -26, -19, -14, -9, -4, 1, 6, 11, 16, 23, 28, 35, 42, 49, 56, 63, 72, 81, 90, 101, 120
#define MIDPOINTS                                                                                                                                    \
    -2, -49, 45, -83, -23, 19, 76, -109, -64, -35, -12, 8, 31, 59, 95, -122, -95, -73, -56, -42, -29, -17, -7, 3, 13, 25, 38, 52, 67, 85, 110
enum { SEARCH_FIRST = 0, SEARCH_STEP = 1, BEST_FIRST = -4, FAST = 2 };

#include "kernels/table.h"

#include "kernels/op_tile.h"
