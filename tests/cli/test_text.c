/* SPDX-License-Identifier: MIT */
/* Text as people see it, and JSON with it: every character, and what is none. */
#define _POSIX_C_SOURCE 200809L
#include "tests/lib/support.h"

#include "tools/files/json.h"
#include "tools/files/text.h"

#include <stdlib.h>
#include <string.h>

/* One code point as UTF-8 has it; returns its length. */
static size_t encode(uint32_t c, char bytes[5])
{
    const size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned first[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (size_t i = n; i-- > 1; c >>= 6)
        bytes[i] = (char)(0x80 | (c & 0x3f));
    bytes[0] = (char)(first[n] | c);
    bytes[n] = '\0';
    return n;
}

/* The characters that steer, as the Unicode standard lists them. */
static bool steers(uint32_t c)
{
    static const uint32_t ranges[][2] = { { 0, 0x1f },        { 0x7f, 0x9f },     { 0x61c, 0x61c },   { 0x200e, 0x200f },  { 0x2028, 0x202e },
                                          { 0x2066, 0x2069 }, { 0xfeff, 0xfeff }, { 0xfff9, 0xfffb }, { 0xe0000, 0xe00ff } };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return (c & 0xffff) >= 0xfffe;
}

static bool is_right(uint32_t c)
{
    char bytes[5], shown[32], expected[32];
    uint32_t read = 0;
    const size_t n = encode(c, bytes);
    if (c >= 0xd800 && c < 0xe000)
        return text_character(bytes, n, &read) == 0;
    snprintf(expected, sizeof expected, c < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)c);
    return text_character(bytes, n, &read) == n && read == c && text_character(bytes, n - 1, &read) == 0 && text_is_control(c) == steers(c) &&
           text_shown(shown, sizeof shown, bytes) == strlen(shown) && strcmp(shown, steers(c) ? expected : bytes) == 0;
}

START_TEST(every_character)
{
    for (uint32_t c = 1; c < 0x110000; c++)
        if (!is_right(c)) /* an assertion for each would take seconds */
            ck_abort_msg("U+%04X", (unsigned)c);
}
END_TEST

START_TEST(no_characters)
{
    static const struct {
        const char *text, *shown;
    } cases[] = {
        { "", "" },
        { "plain, \"quoted\" \\n", "plain, \"quoted\" \\n" },
        { "a\xff", "a\\xff" },
        { "\xc0\xaf", "\\xc0\\xaf" },                   /* "/" in two bytes */
        { "\xe0\x80\x80", "\\xe0\\x80\\x80" },          /* NUL in three */
        { "\xed\xa0\x80", "\\xed\\xa0\\x80" },          /* half of a pair */
        { "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80" }, /* beyond the last */
        { "\xc3", "\\xc3" },                            /* cut */
        { "\xe2\x80", "\\xe2\\x80" },
        { "\x9b\x1b[31m", "\\x9b\\x1b[31m" },
        { "\xc3\xa9\xe2\x80\xae\xf0\x9f\x98\x80", "\xc3\xa9\\u202e\xf0\x9f\x98\x80" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char shown[100], again[100];
        text_shown(shown, sizeof shown, cases[i].text);
        ck_assert_str_eq(shown, cases[i].shown);
        text_shown(again, sizeof again, shown);
        ck_assert_str_eq(again, shown);
    }
}
END_TEST

START_TEST(little_room)
{
    static const char text[] = "ab\xc3\xa9\x1b\xf0\x9f\x98\x80z"; /* shown in 2 + 2 + 4 + 4 + 1 bytes */
    static const char whole[] = "ab\xc3\xa9\\x1b\xf0\x9f\x98\x80z";
    for (size_t room = 4; room <= sizeof whole + 1; room++) {
        char shown[40];
        memset(shown, '#', sizeof shown);
        const size_t length = text_shown(shown, room, text);
        ck_assert_uint_lt(length, room);
        ck_assert_uint_eq(strlen(shown), length);
        ck_assert_int_eq(shown[room], '#');
        if (room >= sizeof whole) {
            ck_assert_str_eq(shown, whole);
            continue;
        }
        ck_assert_str_eq(shown + length - 3, "...");
        ck_assert_int_eq(memcmp(shown, whole, length - 3), 0);
        /* cut between characters */
        ck_assert(length - 3 == 0 || length - 3 == 1 || length - 3 == 2 || length - 3 == 4 || length - 3 == 8 || length - 3 == 12);
    }
}
END_TEST

/* In parts of every size, a terminal gets what it gets of the whole. */
START_TEST(parts)
{
    static const char text[] = "a\n\tb\xc3\xa9\x1b\xe2\x80\xae\xf0\x9f\x98\x80\xff\xe0\x80z\xed\xa0\x80\xf4\x8f\xbf\xbf\xc3";
    static const char expected[] = "a\n\tb\xc3\xa9\\x1b\\u202e\xf0\x9f\x98\x80\\xff\\xe0\\x80z\\xed\\xa0\\x80\\u10ffff\\xc3";
    for (size_t part = 1; part < sizeof text; part++) {
        char *shown = NULL, held[64];
        size_t size = 0, n_held = 0;
        FILE *stream = open_memstream(&shown, &size);
        for (size_t at = 0; at < sizeof text - 1; at += part) {
            const size_t n = sizeof text - 1 - at < part ? sizeof text - 1 - at : part;
            memcpy(held + n_held, text + at, n);
            n_held += n;
            const size_t used = text_print_part(stream, held, n_held, false);
            n_held -= used;
            memmove(held, held + used, n_held);
            ck_assert_uint_lt(n_held, 4);
        }
        ck_assert_uint_eq(text_print_part(stream, held, n_held, true), n_held);
        fclose(stream);
        ck_assert_str_eq(shown, expected);
        free(shown);
    }
}
END_TEST

/* What is printed is the same value, and has no character that steers. */
START_TEST(json)
{
    char text[4 * 0x3000];
    size_t length = 0;
    for (uint32_t c = 1; c < 0x10ffff; c += c < 0x2100 ? 1 : c < 0xd700 ? 97 : c < 0xe000 ? 0xe000 - c : 4093)
        length += encode(c, text + length);
    encode(0xe0001, text + length);
    json_t *value = json_pack("{s:s}", text, text);
    ck_assert_ptr_nonnull(value);
    for (int in_page = 0; in_page < 2; in_page++) {
        char *printed = NULL;
        size_t size = 0;
        FILE *stream = open_memstream(&printed, &size);
        ck_assert_int_eq((in_page ? json_print_in_page : json_print)(value, stream, JSON_INDENT(2)), 0);
        fclose(stream);
        json_t *back = json_loads(printed, 0, NULL);
        ck_assert(json_equal(back, value));
        for (size_t at = 0; at < size;) {
            uint32_t c = 0;
            const size_t n = text_character(printed + at, size - at, &c);
            ck_assert_uint_gt(n, 0);
            ck_assert(!steers(c) || c == '\n');
            ck_assert(!in_page || (c != '<' && c != '>' && c != '&'));
            at += n;
        }
        json_decref(back);
        free(printed);
    }
    json_decref(value);
    ck_assert_int_eq(json_print(NULL, stdout, 0), -1);
    json_t *odd = json_text("a\xff\xe2\x80\xae");
    ck_assert_str_eq(json_string_value(odd), "a\\xff\\u202e");
    json_decref(odd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("text");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    tcase_add_test(all, every_character);
    tcase_add_test(all, no_characters);
    tcase_add_test(all, little_room);
    tcase_add_test(all, parts);
    tcase_add_test(all, json);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
