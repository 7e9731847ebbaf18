/* SPDX-License-Identifier: MIT */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tools/engine/expression.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct expression {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

/* ---- Ruby's syntax as PCRE2's ---- */

typedef struct translation {
    const char *at;
    char *out;
    size_t n_out;
    const char *refused; /* what is not understood, or NULL */
} translation;

static void put(translation *state, const char *text, size_t n)
{
    memcpy(state->out + state->n_out, text, n);
    state->n_out += n;
}

static void put_text(translation *state, const char *text)
{
    put(state, text, strlen(text));
}

static void copy(translation *state, size_t n)
{
    put(state, state->at, n);
    state->at += n;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* \p{Lu}, \P{Lu} or \p{^Lu}. */
static bool property(translation *state)
{
    static const char *const categories[] = { "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P",  "Pc", "Pd",
                                              "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "Cc", "Cf" };
    static const char *const scripts[] = { "Han", "Hiragana", "Katakana", "Hangul" };
    const char *name = state->at + 3 + (begins(state->at + 2, "{^") ? 1 : 0);
    const size_t n = state->at[2] == '{' ? strcspn(name, "}") : 0;
    bool known = false, is_script = false;
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++)
        known = known || (strlen(categories[i]) == n && memcmp(name, categories[i], n) == 0);
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        is_script = is_script || (strlen(scripts[i]) == n && memcmp(name, scripts[i], n) == 0);
    if ((!known && !is_script) || name[n] != '}')
        return false;
    put(state, state->at, (size_t)(name - state->at));
    put_text(state, is_script ? "sc:" : ""); /* a script's own characters, not all that are used with it */
    put(state, name, n + 1);
    state->at = name + n + 1;
    return true;
}

static bool escape(translation *state)
{
    static const struct {
        char letter;
        const char *text;
    } known[] = { { 's', "\\p{wspace}" }, { 'S', "\\P{wspace}" }, { 'd', "\\p{Nd}" }, { 'D', "\\P{Nd}" }, { 'v', "\\x0b" },
                  { 'r', "\\r" },         { 'n', "\\n" },         { 't', "\\t" },     { 'f', "\\f" } };
    const char letter = state->at[1];
    if (letter == 'p' || letter == 'P')
        return property(state);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (letter == known[i].letter) {
            put_text(state, known[i].text);
            state->at += 2;
            return true;
        }
    }
    if (letter == 0 || !strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ", letter))
        return false;
    copy(state, 2);
    return true;
}

static bool class_of_characters(translation *state)
{
    copy(state, state->at[1] == '^' ? 2 : 1);
    bool is_empty = true;
    for (; *state->at != ']' || is_empty; is_empty = false) {
        if (*state->at == 0 || *state->at == '[' || *state->at == ']' || begins(state->at, "&&"))
            return false;
        if (*state->at != '\\')
            copy(state, 1);
        else if (!escape(state))
            return false;
    }
    copy(state, 1);
    return true;
}

static bool group(translation *state)
{
    /* Of more, Oniguruma matches characters that stand for several letters. */
    static const char *const any_case[] = { "'s|'t|'re|'ve|'m|'ll|'d)", "[sdmt]|ll|ve|re)" };
    static const char *const kinds[] = { "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>" };
    if (begins(state->at, "(?i:")) {
        for (size_t i = 0; i < 2; i++) {
            if (begins(state->at + 4, any_case[i])) {
                copy(state, 4 + strlen(any_case[i]));
                return true;
            }
        }
        return false;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (begins(state->at, kinds[i])) {
            copy(state, strlen(kinds[i]));
            return true;
        }
    }
    if (state->at[1] == '?' || state->at[1] == '*')
        return false;
    copy(state, 1);
    return true;
}

/* {m}, {m,} or {m,n}; what follows may not change it, as that means different things. */
static bool repetition(translation *state)
{
    const char *at = state->at + 1;
    const size_t least = strspn(at, "0123456789");
    at += least;
    at += *at == ',' ? 1 + strspn(at + 1, "0123456789") : 0;
    if (least == 0 || *at != '}' || at[1] == '+' || at[1] == '?' || at[1] == '*' || at[1] == '{')
        return false;
    copy(state, (size_t)(at + 1 - state->at));
    return true;
}

static bool translate(translation *state)
{
    bool known = true;
    while (known && *state->at != 0) {
        state->refused = state->at;
        if (*state->at == '\\') {
            known = escape(state);
        } else if (*state->at == '[') {
            known = class_of_characters(state);
        } else if (*state->at == '(') {
            known = group(state);
        } else if (*state->at == '{') {
            known = repetition(state);
        } else if (*state->at == '^' || *state->at == '$') { /* of lines */
            put_text(state, *state->at == '^' ? "(?m:^)" : "(?m:$)");
            state->at++;
        } else {
            copy(state, 1);
        }
    }
    return known;
}

/* ---- expressions ---- */

static expression *open_code(const char *pattern, size_t length, uint32_t options, const char *shown, error_text *error)
{
    expression *compiled = calloc(1, sizeof *compiled);
    int code = 0;
    size_t where = 0;
    if (compiled != NULL) {
        pcre2_compile_context *compile = pcre2_compile_context_create(NULL);
        if (compile != NULL) {
            pcre2_set_newline(compile, PCRE2_NEWLINE_LF);
            compiled->code = pcre2_compile((PCRE2_SPTR)pattern, length, options, &code, &where, compile);
            pcre2_compile_context_free(compile);
        }
        compiled->match = compiled->code != NULL ? pcre2_match_data_create(1, NULL) : NULL;
        compiled->limits = pcre2_match_context_create(NULL);
    }
    uint32_t matches_nothing = 0;
    if (compiled != NULL && compiled->code != NULL)
        pcre2_pattern_info(compiled->code, PCRE2_INFO_MATCHEMPTY, &matches_nothing);
    if (compiled != NULL && compiled->match != NULL && compiled->limits != NULL && !matches_nothing)
        return compiled;
    char message[128] = "no memory is left";
    if (code != 0)
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
    error_set(error, "expression \"%.200s\" cannot be used: %s", shown, matches_nothing ? "it matches nothing at all" : message);
    expression_close(compiled);
    return NULL;
}

expression *expression_open(const char *pattern, error_text *error)
{
    /* In the middle of a text each space but the first would be tried in vain, to the end of all of them: a match begins at the first, or nowhere. */
    static const char at_end[] = "\\s+$";
    char *out = malloc(8 * strlen(pattern) + 32); /* the longest rewriting is of two characters by eleven */
    if (out == NULL) {
        error_set(error, "expression \"%.200s\" cannot be used: no memory is left", pattern);
        return NULL;
    }
    translation state = { .at = pattern, .out = out };
    put_text(&state, strcmp(pattern, at_end) == 0 ? "(?<!\\p{wspace})" : "");
    expression *compiled = NULL;
    if (translate(&state))
        compiled = open_code(out, state.n_out, PCRE2_UTF, pattern, error);
    else
        error_set(error, "expression \"%.200s\" cannot be used: \"%.20s\" is not understood", pattern, state.refused);
    free(out);
    return compiled;
}

expression *expression_open_literal(const char *text, error_text *error)
{
    return open_code(text, strlen(text), PCRE2_LITERAL, text, error);
}

void expression_close(expression *compiled)
{
    if (compiled == NULL)
        return;
    pcre2_match_context_free(compiled->limits);
    pcre2_match_data_free(compiled->match);
    pcre2_code_free(compiled->code);
    free(compiled);
}

int expression_find(const expression *compiled, const uint8_t *text, size_t length, size_t from, size_t *first, size_t *end, error_text *error)
{
    /* The expressions of models give a few steps back for each character; one that gives more would never end. */
    const size_t steps = 10000 + 64 * (length - from);
    pcre2_set_match_limit(compiled->limits, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    const int n = pcre2_match(compiled->code, text, length, from, PCRE2_NO_UTF_CHECK, compiled->match, compiled->limits);
    if (n == PCRE2_ERROR_NOMATCH)
        return 0;
    if (n < 0)
        return error_set(error, "cannot be cut into pieces: the tokenizer's expression takes too long or too much memory on it");
    const size_t *at = pcre2_get_ovector_pointer(compiled->match);
    *first = at[0];
    *end = at[1];
    return 1;
}
