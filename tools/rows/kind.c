/* SPDX-License-Identifier: MIT */
#include "tools/rows/kind.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static const struct {
    const char *words[2]; /* singular, plural */
    char letter;
} KINDS[] = {
    [ROWS_KEYS] = { { "key", "keys" }, 'k' }, [ROWS_VALUES] = { { "value", "values" }, 'v' }, [ROWS_QUERIES] = { { "query", "queries" }, 'q' }
};

/* Words of more letters that mean one: llama.cpp's names of rows, and of what vLLM and others keep them in. */
static const char *const AFTER_LETTER[] = { "cur", "cache", "proj", "states" };

typedef struct finding {
    rows_kind kind; /* ROWS_UNKNOWN: none */
    int weight;     /* 3: the most; 0: none */
} finding;

static bool same_letters(const char *text, const char *word, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (tolower((unsigned char)text[i]) != word[i])
            return false;
    return true;
}

static bool begins_or_ends(const char *text, size_t length, const char *word)
{
    const size_t own = strlen(word);
    return length >= own && (same_letters(text, word, own) || same_letters(text + length - own, word, own));
}

static bool is_one_letter(const char *text, size_t length, char letter)
{
    if (tolower((unsigned char)text[0]) != letter)
        return false;
    for (size_t i = 0; i < sizeof AFTER_LETTER / sizeof *AFTER_LETTER; i++)
        if (length == 1 + strlen(AFTER_LETTER[i]) && same_letters(text + 1, AFTER_LETTER[i], length - 1))
            return true;
    return length == 1;
}

/* Whether the letter at text[0] of a name has a number behind it, and if so, whether both stand alone. */
typedef enum numbering { NO_NUMBER, ALONE, IN_NAME } numbering;

static numbering numbering_of(const char *name, const char *text)
{
    const size_t digits = strspn(text + 1, "0123456789");
    if (digits == 0)
        return NO_NUMBER;
    const bool begins = text == name || text[-1] == '.', ends = text[1 + digits] == '\0' || text[1 + digits] == '.';
    return begins && ends ? ALONE : IN_NAME;
}

/* What `length` letters at `text` of a name say. */
static finding finding_of(const char *name, const char *text, size_t length)
{
    finding found = { ROWS_UNKNOWN, 0 };
    for (rows_kind kind = ROWS_KEYS; kind < ROWS_UNKNOWN; kind++) {
        if (begins_or_ends(text, length, KINDS[kind].words[0]) || begins_or_ends(text, length, KINDS[kind].words[1])) {
            const bool both = found.weight == 3 && kind == ROWS_VALUES; /* "keyvalues" */
            found = both ? (finding){ ROWS_UNKNOWN, 0 } : (finding){ kind, 3 };
        } else if (found.weight == 0 && is_one_letter(text, length, KINDS[kind].letter)) {
            const numbering number = length == 1 ? numbering_of(name, text) : NO_NUMBER;
            found = number == IN_NAME ? found : (finding){ kind, number == ALONE ? 1 : 2 };
        }
    }
    return found;
}

static size_t letters_at(const char *text)
{
    size_t n = 0;
    while (isalpha((unsigned char)text[n]) && !(n > 0 && isupper((unsigned char)text[n]) && islower((unsigned char)text[n - 1])))
        n++;
    return n;
}

rows_kind rows_kind_of(const char *name)
{
    finding best = { ROWS_UNKNOWN, 0 }, before_best = best, last = best;
    for (const char *at = name; *at != '\0';) {
        const size_t length = letters_at(at);
        if (length == 0) {
            if (isdigit((unsigned char)*at))
                last = (finding){ ROWS_UNKNOWN, 0 }; /* what follows a number stands by itself */
            at++;
            continue;
        }
        const finding found = finding_of(name, at, length);
        if (last.kind == ROWS_KEYS && found.kind == ROWS_VALUES && last.weight == found.weight) {
            best = before_best; /* both: neither counts */
            last = (finding){ ROWS_UNKNOWN, 0 };
        } else {
            before_best = best;
            if (found.weight > 0 && found.weight >= best.weight)
                best = found;
            last = found;
        }
        at += length;
    }
    return best.kind;
}
