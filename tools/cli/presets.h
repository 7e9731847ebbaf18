/* SPDX-License-Identifier: MIT */
/* Presets of kvtile/step.h, by their names. */
#ifndef KVT_CLI_PRESETS_H
#define KVT_CLI_PRESETS_H

#include <kvtile/step.h>

#include <stdbool.h>

/* A preset's schemes: of keys, of values, and of a sequence's first page. */
typedef struct preset_schemes {
    const char *k, *v, *first;
} preset_schemes;

/* False where there is no preset of that name. */
bool preset_find(preset_schemes *found, const char *name);

#endif
