#define _GNU_SOURCE /* newlocale */
#include "tools/engine/pretokens.h"

#include <locale.h>
#include <string.h>
#include <wctype.h>

typedef enum class { LETTER, NUMBER, SPACE, NEWLINE, OTHER, NOTHING } class;

/* ---- characters ---- */

size_t pretokens_character(const uint8_t *text, size_t length)
{
    size_t n = 1;
    while (n < 4 && n < length && (text[n] & 0xc0) == 0x80)
        n++;
    return n;
}

static uint32_t code_point(const uint8_t *text, size_t n)
{
    static const uint8_t lead[5] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    uint32_t code = text[0] & lead[n];
    for (size_t i = 1; i < n; i++)
        code = code << 6 | (text[i] & 0x3f);
    return code;
}

static class beyond_ascii(uint32_t code)
{
    static locale_t unicode;
    if (unicode == NULL)
        unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
    if (code == 0xa0 || code == 0x85)
        return SPACE;
    if (unicode == NULL)
        return LETTER;
    return iswspace_l((wint_t)code, unicode) ? SPACE : iswalpha_l((wint_t)code, unicode) ? LETTER : OTHER;
}

/* The class of the character at `at`, and its length. */
static class class_at(const uint8_t *text, size_t length, size_t at, size_t *n)
{
    *n = 0;
    if (at >= length)
        return NOTHING;
    const uint8_t c = text[at];
    *n = pretokens_character(text + at, length - at);
    if (c >= 0x80)
        return beyond_ascii(code_point(text + at, *n));
    *n = 1;
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
        return LETTER;
    if (c >= '0' && c <= '9')
        return NUMBER;
    return c == '\n' || c == '\r' ? NEWLINE : c == ' ' || (c >= 9 && c <= 13) ? SPACE : OTHER;
}

/* The end of up to `most` characters of a class. */
static size_t end_of(const uint8_t *text, size_t length, size_t at, class wanted, size_t most)
{
    size_t n;
    for (; most > 0 && class_at(text, length, at, &n) == wanted; most--)
        at += n;
    return at;
}

/* ---- pieces ---- */

static size_t contraction(const uint8_t *text, size_t length, bool any_case)
{
    static const char *const endings[] = { "s", "t", "re", "ve", "m", "ll", "d" };
    for (size_t i = 0; text[0] == '\'' && i < sizeof endings / sizeof *endings; i++) {
        const size_t n = strlen(endings[i]);
        size_t same = 0;
        while (same < n && 1 + same < length && (text[1 + same] | (any_case ? 0x20 : 0)) == endings[i][same])
            same++;
        if (same == n)
            return 1 + n;
    }
    return 0;
}

/* Spaces: with line breaks, to the last of them; otherwise all but the last, which belongs to what follows. */
static size_t spaces(const uint8_t *text, size_t length, bool by_lines)
{
    size_t n, at = 0, last = 0, after_break = 0;
    for (class one = class_at(text, length, 0, &n); one == SPACE || one == NEWLINE; one = class_at(text, length, at, &n)) {
        last = at;
        at += n;
        after_break = one == NEWLINE ? at : after_break;
    }
    if (by_lines && after_break > 0)
        return after_break;
    return at < length && last > 0 ? last : at;
}

static size_t by_expression(const uint8_t *text, size_t length, bool llama3, size_t most_digits)
{
    size_t n;
    const size_t short_form = contraction(text, length, llama3);
    if (short_form > 0)
        return short_form;
    const class first = class_at(text, length, 0, &n);
    const size_t after_space = text[0] == ' ' ? 1 : 0;
    const size_t before_letters = llama3 && (first == SPACE || first == OTHER) ? n : after_space;
    size_t end = end_of(text, length, before_letters, LETTER, SIZE_MAX);
    if (end > before_letters)
        return end;
    const size_t before_numbers = llama3 ? 0 : after_space;
    end = end_of(text, length, before_numbers, NUMBER, most_digits);
    if (end > before_numbers)
        return end;
    end = end_of(text, length, after_space, OTHER, SIZE_MAX);
    if (end > after_space)
        return llama3 ? end_of(text, length, end, NEWLINE, SIZE_MAX) : end;
    return spaces(text, length, llama3);
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

size_t pretokens_next(const pretokens *how, const uint8_t *text, size_t length)
{
    size_t end = 1;
    if (how->lone_digits) {
        if (is_digit(text[0]))
            return 1;
        while (end < length && !is_digit(text[end]))
            end++;
        length = end;
    }
    switch (how->kind) {
    case PRETOKENS_WHOLE:
        return length;
    case PRETOKENS_SPACES:
        for (end = 1; end < length && text[end] != ' ';)
            end++;
        return end;
    case PRETOKENS_GPT2:
        return by_expression(text, length, false, SIZE_MAX);
    case PRETOKENS_LLAMA3:
        return by_expression(text, length, true, how->most_digits);
    }
    return length;
}
