/* SPDX-License-Identifier: MIT */
/* The variable KVTILE: how rows are stored, words with commas between.
 *     balanced, quality, compact, tight       a preset; balanced where there is none
 *     SCHEME or SCHEME/SCHEME                 of keys and values
 *     rotation=0|64|128  centring=none|own  first=SCHEME|none
 *     report                                  counts at the end */
#ifndef KVT_GGML_OPTIONS_H
#define KVT_GGML_OPTIONS_H

#include "tools/ggml/cells.h"

typedef struct options {
    cells_way way;
    bool report;
    char name[64]; /* "kv5/kv4" */
} options;

/* False, and a message in `problem`, where a word is none of them. */
bool options_parse(options *chosen, const char *text, char *problem, size_t bytes);

#endif
