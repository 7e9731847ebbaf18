/* SPDX-License-Identifier: MIT */
/* Keys, values or queries, by name. */
#ifndef KVT_TOOLS_KIND_H
#define KVT_TOOLS_KIND_H

typedef enum rows_kind { ROWS_KEYS, ROWS_VALUES, ROWS_QUERIES, ROWS_UNKNOWN } rows_kind;

/* What the name of a tensor or a file says that it holds. A name is taken as words of letters, and numbers; "keyCache" is two words. In order of
 * weight:
 *
 *   1. a word that begins or ends with key, keys, value, values, query or queries, whatever its letter case;
 *   2. the letter k, v or q as a word ("layer3_v", "Kcur", "k_cache_v2");
 *   3. such a letter and a number that stand alone, or between dots ("v0", "layer.3.k12.npy"): "cache_v2" and "q8_0" are a version and a format.
 *
 * A word for keys with one for values right behind it names both ("past_key_values", "kv") and says nothing. Of several of the same weight the last
 * one counts: "past_key_values.0.key". ROWS_UNKNOWN when nothing is left. */
rows_kind rows_kind_of(const char *name);

#endif
