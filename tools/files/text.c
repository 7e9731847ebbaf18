/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* strnlen */
#include "tools/files/text.h"

#include <string.h>

size_t text_character(const char *bytes, size_t size, uint32_t *character)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const uint8_t *at = (const uint8_t *)bytes;
    if (size == 0)
        return 0;
    const size_t length = at[0] < 0x80 ? 1 : at[0] >> 5 == 6 ? 2 : at[0] >> 4 == 14 ? 3 : at[0] >> 3 == 30 ? 4 : 0;
    if (length == 0 || length > size)
        return 0;
    uint32_t value = length == 1 ? at[0] : at[0] & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if (at[i] >> 6 != 2)
            return 0;
        value = value << 6 | (at[i] & 0x3f);
    }
    if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        return 0;
    *character = value;
    return length;
}

bool text_is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || (c & 0xfffe) == 0xfffe || c >> 8 == 0xe00;
}

/* The first character of `size` bytes, at least 1, as it is shown; returns how many bytes of them that was. */
static size_t show_one(const char *text, size_t size, char shown[16])
{
    uint32_t character = 0;
    if (*text >= ' ' && *text <= '~') { /* most are */
        memcpy(shown, (const char[]){ *text, '\0' }, 2);
        return 1;
    }
    const size_t length = text_character(text, size, &character);
    if (length == 0)
        snprintf(shown, 16, "\\x%02x", (unsigned)(uint8_t)*text);
    else if (!text_is_control(character))
        snprintf(shown, 16, "%.*s", (int)length, text);
    else
        snprintf(shown, 16, character < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)character);
    return length > 0 ? length : 1;
}

size_t text_shown_bytes(char *to, size_t room, const char *bytes, size_t size)
{
    char unit[16];
    size_t length = 0;
    size_t fits = 0; /* with "..." behind it */
    for (size_t at = 0; at < size;) {
        at += show_one(bytes + at, size - at, unit);
        const size_t n = strlen(unit);
        if (length + n >= room) {
            memcpy(to + fits, "...", 4);
            return fits + 3;
        }
        memcpy(to + length, unit, n);
        length += n;
        if (length + 3 < room)
            fits = length;
    }
    to[length] = '\0';
    return length;
}

size_t text_shown(char *to, size_t room, const char *text)
{
    return text_shown_bytes(to, room, text, strlen(text));
}

void text_print(FILE *stream, const char *text)
{
    char unit[16];
    while (*text != '\0') {
        text += show_one(text, strnlen(text, 4), unit);
        fputs(unit, stream);
    }
}

/* Whether more bytes could make a character of these. */
static bool is_begun(const char *bytes, size_t size)
{
    uint32_t character;
    static const char *const rests[] = { "\x80\x80\x80", "\xbf\xbf\xbf" }; /* the least and the greatest: one of them is right after E0 or ED */
    char whole[8];
    bool begun = false;
    for (size_t i = 0; i < 2 && size < 4; i++) {
        memcpy(whole, bytes, size);
        memcpy(whole + size, rests[i], 3);
        begun = begun || text_character(whole, size + 3, &character) > size;
    }
    return begun;
}

size_t text_print_part(FILE *stream, const char *bytes, size_t size, bool is_last)
{
    char unit[16];
    size_t at = 0;
    while (at < size && (is_last || !is_begun(bytes + at, size - at))) {
        const bool layout = bytes[at] == '\n' || bytes[at] == '\t';
        const char plain[2] = { bytes[at], '\0' };
        const size_t length = layout ? 1 : show_one(bytes + at, size - at, unit);
        fputs(layout ? plain : unit, stream);
        at += length;
    }
    return at;
}

bool text_ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

const char *text_plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}
