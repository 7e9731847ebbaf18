/* SPDX-License-Identifier: MIT */
/* The scales of tables, as they are stored. docs/formats.md, section 4, has every step; numbers of steps are its.
 *
 * A scale is handled as a grid index: the upper bits of its float, bits >> 20 for a row's first scale (3 bits of mantissa) and bits >> 19 for the
 * others (4). */
#ifndef KVT_TABLE_SCALE_H
#define KVT_TABLE_SCALE_H

enum {
    FIRST_SHIFT = 20,
    OTHER_SHIFT = 19,
    FIRST_BIAS = 105, /* exponent of a float - exponent of the first scale: 127 - 22 */
    OTHER_BIAS = 101  /* the same of other scales relative to the first: 127 - 22 - 4 */
};

#endif
