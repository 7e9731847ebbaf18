/* SPDX-License-Identifier: MIT */
/* Whether the table that Python works from is what the compiler makes of the headers: this compiles, or the table is wrong. check_table.py makes
 * table.inc, which includes every header, of the table and of the offsets that ctypes takes from it. */
#include <kvtile/kvtile.h>

#define STRUCT(name, bytes, alignment) _Static_assert(sizeof(name) == (bytes) && _Alignof(name) == (alignment), "struct " #name)
#define FIELD(name, field, pointer, offset, bytes)                                                                                                   \
    _Static_assert(offsetof(name, field) == (offset) && sizeof(((name *)0)->field) == (bytes) &&                                                     \
                       _Generic(&((name *)0)->field, pointer : 1, default : 0),                                                                      \
                   "field " #name "." #field)
#define VALUE(name, value)      _Static_assert((name) == (value), "value " #name)
#define FUNCTION(name, pointer) _Static_assert(_Generic(&name, pointer : 1, default : 0), "function " #name)

#include "table.inc"
