/* SPDX-License-Identifier: MIT */
/* Text that comes from files and arguments, as people see it. */
#ifndef KVT_TOOLS_TEXT_H
#define KVT_TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The character at the beginning of `size` bytes: its length in UTF-8, from 1 to 4, or 0 when there is no valid one (or size is 0). */
size_t text_character(const char *bytes, size_t size, uint32_t *character);

/* Whether a character tells a terminal or a page what to do, instead of being seen: controls (C0, DEL, C1), separators of lines and paragraphs, marks
 * and overrides of the direction of writing, and what is no character. */
bool text_is_control(uint32_t character);

/* Writes `text` to `to`, which has room for `room` bytes (at least 4) and does not overlap, as one line of valid UTF-8: control characters as \x1b or
 * \u202e, bytes that are not UTF-8 as \xff. What is too long ends in "...". Returns the length. What has been through this stays as it is. */
size_t text_shown(char *to, size_t room, const char *text);

/* The same for bytes, which may be any, zeros too. */
size_t text_shown_bytes(char *to, size_t room, const char *bytes, size_t size);

/* The same, of whatever length, to a stream. */
void text_print(FILE *stream, const char *text);

/* A part of a longer text, of several lines, to a terminal: newlines and tabs as they are, the rest as text_shown does it. Returns how many bytes
 * were printed: all but those that may be the beginning of a character, and with `is_last` all. */
size_t text_print_part(FILE *stream, const char *bytes, size_t size, bool is_last);

bool text_ends_with(const char *text, const char *end);

/* What the name of n things ends in: "" or "s". */
const char *text_plural(uint64_t n);

#endif
