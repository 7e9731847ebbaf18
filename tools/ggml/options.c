/* SPDX-License-Identifier: MIT */
#include "tools/ggml/options.h"

#include <stdio.h>
#include <string.h>

enum { MOST_TEXT = 200 };

static bool find_scheme(const char *name, kvt_scheme *found)
{
    const kvt_scheme_info *info = kvt_scheme_find(name);
    *found = info ? info->scheme : KVT_SCHEME_NONE;
    return info != NULL;
}

static bool take_preset(cells_way *way, const char *name)
{
    const char *known;
    for (int preset = 0; (known = kvt_preset_name((kvt_preset)preset)) != NULL; preset++) {
        kvt_spec spec = { .size = sizeof spec }, first;
        if (strcmp(name, known) != 0 || kvt_preset_spec((kvt_preset)preset, &spec, &first) != KVT_OK)
            continue;
        *way = (cells_way){ spec.k_scheme, spec.v_scheme, first.k_scheme, spec.k_options.rotation, spec.k_options.centring };
        return true;
    }
    return false;
}

/* Rows that are kept as they are gain nothing by a rotation or a centre. */
static bool take_schemes(cells_way *way, char *name)
{
    char *slash = strchr(name, '/');
    kvt_scheme k, v;
    if (slash)
        *slash++ = '\0';
    if (!find_scheme(name, &k) || !find_scheme(slash ? slash : name, &v))
        return false;
    const bool is_plain = k == v && kvt_scheme_get(k)->block == 0 && !kvt_scheme_get(k)->is_fp8;
    *way = (cells_way){ k, v, KVT_SCHEME_NONE, KVT_ROTATION_NONE, KVT_CENTRING_NONE };
    if (!is_plain)
        *way = (cells_way){ k, v, KVT_SCHEME_kv8, KVT_ROTATION_64, KVT_CENTRING_OWN };
    return true;
}

static const char *after(const char *word, const char *name)
{
    const size_t n = strlen(name);
    return strncmp(word, name, n) == 0 ? word + n : NULL;
}

static bool take_option(options *chosen, char *word)
{
    const char *value;
    cells_way *way = &chosen->way;
    if ((value = after(word, "rotation=")) != NULL) {
        way->rotation = strcmp(value, "64") == 0 ? KVT_ROTATION_64 : strcmp(value, "128") == 0 ? KVT_ROTATION_128 : KVT_ROTATION_NONE;
        return way->rotation != KVT_ROTATION_NONE || strcmp(value, "0") == 0;
    }
    if ((value = after(word, "centring=")) != NULL) {
        way->centring = strcmp(value, "own") == 0 ? KVT_CENTRING_OWN : KVT_CENTRING_NONE;
        return way->centring == KVT_CENTRING_OWN || strcmp(value, "none") == 0;
    }
    if ((value = after(word, "first=")) != NULL)
        return find_scheme(value, &way->first) || strcmp(value, "none") == 0;
    if (strcmp(word, "report") == 0)
        return chosen->report = true;
    return take_preset(way, word) || take_schemes(way, word);
}

bool options_parse(options *chosen, const char *text, char *problem, size_t bytes)
{
    *chosen = (options){ .report = false };
    (void)take_preset(&chosen->way, "balanced");
    char copy[MOST_TEXT];
    if (text && strlen(text) >= sizeof copy) {
        snprintf(problem, bytes, "KVTILE has %zu characters: at most %d are possible", strlen(text), MOST_TEXT - 1);
        return false;
    }
    strcpy(copy, text ? text : "");
    for (char *word = copy, *next; word && *word; word = next) {
        next = strchr(word, ',');
        if (next)
            *next++ = '\0';
        char whole[MOST_TEXT];
        strcpy(whole, word);
        if (!take_option(chosen, word)) {
            snprintf(problem, bytes,
                     "KVTILE: \"%s\" is no preset (balanced, quality, compact, tight), no scheme (kv5, kv5/kv4, q8_0, f16 and so on), and none of "
                     "rotation=0|64|128, centring=none|own, first=SCHEME|none, report",
                     whole);
            return false;
        }
    }
    snprintf(chosen->name, sizeof chosen->name, "%s/%s", kvt_scheme_get(chosen->way.k_scheme)->name, kvt_scheme_get(chosen->way.v_scheme)->name);
    return true;
}
