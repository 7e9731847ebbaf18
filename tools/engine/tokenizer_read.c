/* See tokenizer_read.h. */
#define _GNU_SOURCE /* qsort_r */
#include "tools/engine/tokenizer_read.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- look-up ---- */

static int compare_bytes(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length)
{
    const size_t shared = a_length < b_length ? a_length : b_length;
    const int order = shared > 0 ? memcmp(a, b, shared) : 0;
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

uint32_t tokenizer_find(const tokenizer *words, const uint8_t *bytes, size_t length)
{
    uint32_t first = 0;
    uint32_t last = (uint32_t)words->n_sorted;
    while (first < last) {
        const uint32_t middle = first + (last - first) / 2;
        const token *candidate = &words->tokens[words->sorted[middle]];
        if (compare_bytes(candidate->bytes, candidate->length, bytes, length) < 0)
            first = middle + 1;
        else
            last = middle;
    }
    if (first == words->n_sorted)
        return NO_TOKEN;
    const uint32_t found = words->sorted[first];
    return compare_bytes(words->tokens[found].bytes, words->tokens[found].length, bytes, length) == 0 ? found : NO_TOKEN;
}

static int compare_tokens(const void *a, const void *b, void *tokens)
{
    const uint32_t i = *(const uint32_t *)a;
    const uint32_t j = *(const uint32_t *)b;
    const token *list = tokens;
    const int order = compare_bytes(list[i].bytes, list[i].length, list[j].bytes, list[j].length);
    return order != 0 ? order : (i > j) - (i < j);
}

static int longest_first(const void *a, const void *b, void *tokens)
{
    const token *list = tokens;
    const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (list[i].length != list[j].length)
        return list[i].length > list[j].length ? -1 : 1;
    return i < j ? -1 : i > j;
}

int tokenizer_sort(tokenizer *words)
{
    words->sorted = malloc(words->size * sizeof *words->sorted);
    if (words->sorted == NULL)
        return -1;
    for (uint32_t i = 0; i < words->size; i++)
        if (words->tokens[i].length > 0)
            words->sorted[words->n_sorted++] = i;
    qsort_r(words->sorted, words->n_sorted, sizeof *words->sorted, compare_tokens, words->tokens);
    if (words->n_added > 0)
        qsort_r(words->added, words->n_added, sizeof *words->added, longest_first, words->tokens);
    return 0;
}

static int by_pair(const void *a, const void *b)
{
    const merge *one = a, *other = b;
    if (one->left != other->left)
        return one->left < other->left ? -1 : 1;
    if (one->right != other->right)
        return one->right < other->right ? -1 : 1;
    return one->rank < other->rank ? -1 : one->rank > other->rank;
}

void tokenizer_sort_merges(tokenizer *words)
{
    if (words->n_merges > 0)
        qsort(words->merges, words->n_merges, sizeof *words->merges, by_pair);
}

/* ---- tokens ---- */

/* How sentencepiece writes a space. */
static const char SPACE[] = "\xe2\x96\x81";
enum { SPACE_BYTES = 3 };

/* On the byte level a byte is a character that can be printed: itself where it can, U+0100 and on for the others, in order. -1: none of these. */
static int byte_of(uint32_t code)
{
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool printed = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
        if (code == (printed ? byte : next))
            return (int)byte;
        next += printed ? 0 : 1;
    }
    return -1;
}

uint32_t tokenizer_decode(const tokenizer *words, const char *text, size_t length, uint8_t *out)
{
    uint32_t n = 0;
    for (size_t i = 0; i < length;) {
        const uint8_t c = (uint8_t)text[i];
        const bool two = c >= 0xc0 && c < 0xe0 && i + 1 < length; /* what stands for bytes is below U+0200 */
        const int byte = !words->byte_level ? -1 : two ? byte_of((uint32_t)(c & 0x1f) << 6 | ((uint8_t)text[i + 1] & 0x3f)) : byte_of(c);
        if (byte >= 0) {
            out[n++] = (uint8_t)byte;
            i += two ? 2 : 1;
        } else if (!words->byte_level && length - i >= SPACE_BYTES && memcmp(text + i, SPACE, SPACE_BYTES) == 0) {
            out[n++] = ' ';
            i += SPACE_BYTES;
        } else {
            out[n++] = c;
            i++;
        }
    }
    return n;
}

bool tokenizer_byte_name(const char *text, size_t length, unsigned *byte)
{
    char name[7] = "", end;
    if (length == 6)
        memcpy(name, text, 6);
    return sscanf(name, "<0x%2x%c", byte, &end) == 2 && end == '>';
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
