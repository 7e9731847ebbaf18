/* SPDX-License-Identifier: MIT */
/* An independent reference for the row formats of other engines, written from docs/formats.md, section 8, alone: channel by channel, in doubles that
 * are rounded to binary32 after every operation. It shares no code with the library. */
#ifndef KVT_TESTS_ROW_REFERENCE_H
#define KVT_TESTS_ROW_REFERENCE_H

#include <kvtile/convert.h>

size_t reference_row_bytes(kvt_row_format format, uint32_t dim);

/* x and the result are bits of binary32 numbers. */
void reference_encode(kvt_row_format format, uint32_t dim, const uint32_t *x, unsigned char *row, kvt_rounding rounding, float global);
void reference_decode(kvt_row_format format, uint32_t dim, const unsigned char *row, uint32_t *x, float global);

#endif
