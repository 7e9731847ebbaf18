/* SPDX-License-Identifier: MIT */
/* llama2.c's vocabulary. */
#include "tools/engine/tokenizer_read.h"
#include "tools/files/number.h"

#include <inttypes.h>
#include <stdlib.h>

int tokenizer_read_llama2(tokenizer *words, error_text *error)
{
    const file_map *map = &words->map;
    if (words->size < TOKEN_FIRST_BYTE + 256)
        return error_set(error, "vocabulary is %" PRIu32 " tokens: at least %d (3 and one for each byte) would be right", words->size,
                         TOKEN_FIRST_BYTE + 256);
    if (map->size < 4 || (map->size - 4) / 8 < words->size)
        return error_set(error, "file is %zu bytes: %" PRIu32 " tokens, as the model has, take more", map->size, words->size);
    words->tokens = malloc(words->size * sizeof *words->tokens);
    if (words->tokens == NULL)
        return error_set(error, "cannot be read: out of memory");
    size_t at = 4;
    for (uint32_t i = 0; i < words->size; i++) {
        if (map->size - at < 8)
            return error_set(error, "file ends at token %" PRIu32 ": %" PRIu32 ", as the model has, would be right", i, words->size);
        const float score = load_float(map->data + at);
        const int32_t length = load_i32(map->data + at + 4);
        at += 8;
        if (length < 0 || (size_t)length > map->size - at)
            return error_set(error, "length of token %" PRIu32 " is %" PRId32 ": 0 to %zu would be right", i, length, map->size - at);
        if (score != score)
            return error_set(error, "score of token %" PRIu32 " is not a number", i);
        words->tokens[i] = (token){ .bytes = map->data + at, .length = (uint32_t)length, .score = score, .is_found = true };
        at += (size_t)length;
    }
    if (at != map->size)
        return error_set(error, "file goes on for %zu bytes after token %" PRIu32 ", the model's last", map->size - at, words->size - 1);
    words->bos = TOKEN_BOS;
    words->eos = TOKEN_EOS;
    words->takes_bytes = words->space_first = true;
    for (uint32_t i = 0; i < 256; i++)
        words->byte_tokens[i] = TOKEN_FIRST_BYTE + i;
    if (pretokens_add(&words->normaliser, (pretokens_step){ .kind = PRETOKENS_PREPEND, .text = " " }, error) != 0)
        return -1;
    return tokenizer_sort(words, error);
}
