/* SPDX-License-Identifier: MIT */
/* Which of its forms a tokenizer has. */
#include "tools/engine/tokenizer_read.h"
#include "tools/files/gguf.h"

/* llama2.c's begins with a number below 2^24. */
static bool is_json(const file_map *map)
{
    return map->size > 1 && map->data[0] == '{' && map->data[1] != 0;
}

int tokenizer_read(tokenizer *words, file_map file, uint32_t size, error_text *error)
{
    tokenizer_begin(words, size);
    words->map = file;
    const bool is_gguf = gguf_is(file.data, file.size);
    const int result = (is_gguf ? tokenizer_read_gguf : is_json(&file) ? tokenizer_read_json : tokenizer_read_llama2)(words, error);
    if (result != 0) {
        words->map = (file_map){ NULL, 0 };
        tokenizer_close(words);
    }
    return result;
}

int tokenizer_open(tokenizer *words, const char *path, uint32_t size, error_text *error)
{
    file_map file;
    *words = (tokenizer){ 0 };
    if (file_map_open(&file, path, error) != 0)
        return -1;
    const int result = tokenizer_read(words, file, size, error);
    if (result != 0)
        file_map_close(&file);
    return result;
}
