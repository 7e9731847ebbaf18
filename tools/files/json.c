/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/files/json.h"

#include "tools/files/text.h"

#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *text)
{
    json_t *string = json_string(text);
    if (string != NULL)
        return string;
    const size_t room = 4 * strlen(text) + 1;
    char *shown = malloc(room < 4 ? 4 : room);
    if (shown != NULL)
        text_shown(shown, room, text);
    string = json_string(shown); /* NULL of NULL */
    free(shown);
    return string;
}

typedef struct destination {
    FILE *stream;
    const char *escaped; /* plain characters that are escaped too */
} destination;

static void write_escaped(FILE *stream, uint32_t character)
{
    if (character >= 0x10000) { /* as UTF-16 */
        fprintf(stream, "\\u%04x", (unsigned)(0xd800 + ((character - 0x10000) >> 10)));
        character = 0xdc00 + (character & 0x3ff);
    }
    fprintf(stream, "\\u%04x", (unsigned)character);
}

/* jansson hands on whole characters. */
static int write_shown(const char *text, size_t size, void *to)
{
    const destination *where = to;
    while (size > 0) {
        uint32_t character = 0;
        const size_t valid = text_character(text, size, &character);
        const size_t length = valid > 0 ? valid : 1;
        const bool plain = valid == 1 && character >= ' ' && character < 0x7f;
        const bool layout = *text == '\n'; /* in strings it is \\n */
        if ((plain && strchr(where->escaped, *text) != NULL) || (valid > 0 && !layout && text_is_control(character)))
            write_escaped(where->stream, character);
        else
            fwrite(text, 1, length, where->stream);
        text += length;
        size -= length;
    }
    return ferror(where->stream) ? -1 : 0;
}

int json_print(const json_t *value, FILE *stream, size_t flags)
{
    return json_dump_callback(value, write_shown, &(destination){ stream, "" }, flags);
}

int json_print_in_page(const json_t *value, FILE *stream, size_t flags)
{
    return json_dump_callback(value, write_shown, &(destination){ stream, "<>&" }, flags);
}
