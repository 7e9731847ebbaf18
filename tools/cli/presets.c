/* SPDX-License-Identifier: MIT */
#include "tools/cli/presets.h"

#include <string.h>

bool preset_find(preset_schemes *found, const char *name)
{
    const char *known;
    int preset = 0;
    while ((known = kvt_preset_name((kvt_preset)preset)) != NULL && strcmp(name, known) != 0)
        preset++;
    kvt_spec spec = { .size = sizeof spec }, first;
    if (known == NULL || kvt_preset_spec((kvt_preset)preset, &spec, &first) != KVT_OK)
        return false;
    *found = (preset_schemes){ kvt_scheme_get(spec.k_scheme)->name, kvt_scheme_get(spec.v_scheme)->name, kvt_scheme_get(first.k_scheme)->name };
    return true;
}
