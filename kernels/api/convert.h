/* SPDX-License-Identifier: MIT */
/* Rows of other engines that do not lie in one piece each. */
#ifndef KVT_FRAME_CONVERT_H
#define KVT_FRAME_CONVERT_H

#include "kernels/api/transfer.h"

#include <kvtile/convert.h>

/* Row i of a call, of its format: where it is, or gathered. */
enum { KVT_MAX_GATHERED = 512 };
typedef const uint8_t *kvt_encoded_row(const void *context, size_t i, uint8_t gathered[KVT_MAX_GATHERED]);

/* kvt_convert_in, without options, of a call whose arguments are checked. */
void kvt_convert_gathered_in(const kvt_transfer *t, size_t first_token, size_t n_tokens, kvt_row_format format, kvt_encoded_row *row,
                             const void *context);

#endif
