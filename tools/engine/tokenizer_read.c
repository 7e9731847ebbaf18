/* SPDX-License-Identifier: MIT */
/* See tokenizer_read.h. */
#define _GNU_SOURCE /* qsort_r */
#include "tools/engine/tokenizer_read.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- look-up ---- */

static int compare_tokens(const void *a, const void *b, void *tokens)
{
    const uint32_t i = *(const uint32_t *)a;
    const uint32_t j = *(const uint32_t *)b;
    const token *list = tokens;
    const int order = tokenizer_compare_bytes(list[i].bytes, list[i].length, list[j].bytes, list[j].length);
    return order != 0 ? order : (i > j) - (i < j);
}

static int by_text(const void *a, const void *b)
{
    const added_token *first = a, *second = b;
    return tokenizer_compare_bytes(first->text, first->length, second->text, second->length);
}

void tokenizer_begin(tokenizer *words, uint32_t size)
{
    *words = (tokenizer){ .size = size, .n_tokens = size, .bos = NO_TOKEN, .eos = NO_TOKEN, .unknown = NO_TOKEN };
    for (size_t i = 0; i < 256; i++)
        words->byte_tokens[i] = NO_TOKEN;
}

int tokenizer_make_room(tokenizer *words, size_t n_tokens, size_t n_added, error_text *error)
{
    words->n_tokens = n_tokens > words->size ? (uint32_t)n_tokens : words->size;
    words->tokens = calloc(words->n_tokens + (size_t)1, sizeof *words->tokens);
    words->added.list = calloc(n_added + 1, sizeof *words->added.list);
    words->normalised_added.list = calloc(n_added + 1, sizeof *words->added.list);
    if (words->tokens == NULL || words->added.list == NULL || words->normalised_added.list == NULL)
        return error_set(error, "cannot be read: out of memory");
    return 0;
}

int tokenizer_sort(tokenizer *words, error_text *error)
{
    words->sorted = malloc((words->n_tokens + (size_t)1) * sizeof *words->sorted);
    if (words->sorted == NULL)
        return error_set(error, "cannot be read: out of memory");
    for (uint32_t i = 0; i < words->n_tokens; i++) {
        const token *entry = &words->tokens[i];
        if (entry->is_found && entry->length > 0)
            words->sorted[words->n_sorted++] = i;
        words->longest = entry->length > words->longest ? entry->length : words->longest;
    }
    qsort_r(words->sorted, words->n_sorted, sizeof *words->sorted, compare_tokens, words->tokens);
    if (words->added.n > 0)
        qsort(words->added.list, words->added.n, sizeof *words->added.list, by_text);
    if (words->normalised_added.n > 0)
        qsort(words->normalised_added.list, words->normalised_added.n, sizeof *words->added.list, by_text);
    return 0;
}

static int by_pair(const void *a, const void *b)
{
    const merge *first = a, *second = b;
    if (first->left != second->left)
        return first->left < second->left ? -1 : 1;
    if (first->right != second->right)
        return first->right < second->right ? -1 : 1;
    return first->rank < second->rank ? -1 : first->rank > second->rank;
}

void tokenizer_sort_merges(tokenizer *words, bool last_counts)
{
    size_t n = 0;
    if (words->n_merges > 0)
        qsort(words->merges, words->n_merges, sizeof *words->merges, by_pair);
    for (size_t i = 0; i < words->n_merges; i++) {
        const merge *entry = &words->merges[i], *kept = n > 0 ? &words->merges[n - 1] : NULL;
        if (kept == NULL || kept->left != entry->left || kept->right != entry->right)
            words->merges[n++] = *entry;
        else if (last_counts)
            words->merges[n - 1] = *entry;
    }
    words->n_merges = n;
}

/* ---- tokens ---- */

/* On the byte level a byte is a character that can be printed: itself where it can, U+0100 and on for the others, in order. -1: none of these. */
static int byte_of(uint32_t code)
{
    if (code < 256)
        return (code > 32 && code < 127) || (code > 160 && code != 173) ? (int)code : -1;
    const uint32_t place = code - 256; /* among 0 .. 32, 127 .. 160, 173 */
    return place < 33 ? (int)place : place < 67 ? (int)place - 33 + 127 : place == 67 ? 173 : -1;
}

uint32_t tokenizer_decode(const char *text, size_t length, uint8_t *out, bool *whole)
{
    uint32_t n = 0;
    *whole = true;
    for (size_t i = 0; i < length;) {
        const uint8_t c = (uint8_t)text[i];
        const bool two = c >= 0xc0 && c < 0xe0 && i + 1 < length; /* what stands for bytes is below U+0200 */
        const int byte = two ? byte_of((uint32_t)(c & 0x1f) << 6 | ((uint8_t)text[i + 1] & 0x3f)) : c < 0x80 ? byte_of(c) : -1;
        out[n++] = byte >= 0 ? (uint8_t)byte : c;
        i += byte >= 0 && two ? 2 : 1;
        *whole = *whole && byte >= 0;
    }
    return n;
}

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool tokenizer_byte_name(const char *text, size_t length, unsigned *byte)
{
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || digit_of(text[3]) < 0 || digit_of(text[4]) < 0 || text[5] != '>')
        return false;
    *byte = (unsigned)(digit_of(text[3]) * 16 + digit_of(text[4]));
    return true;
}

int tokenizer_check_size(const tokenizer *words, error_text *error)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < words->size; i++)
        n += words->tokens[i].bytes != NULL ? 1 : 0;
    if (words->size - n > 1024 || words->size - n > words->size / 8)
        return error_set(error, "has %" PRIu32 " tokens: the model's vocabulary is %" PRIu32, n, words->size);
    return 0;
}
