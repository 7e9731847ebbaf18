/* SPDX-License-Identifier: MIT */
#include "tools/program/options.h"

#include "tools/files/error.h"
#include "tools/program/program.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool lists_only;

void options_list_only(void)
{
    lists_only = true;
}

_Noreturn static void list(const struct poptOption *table)
{
    for (; table->longName != NULL; table++)
        printf("--%s\n", table->longName);
    exit(0);
}

poptContext options_open(const char *who, const char *program, int argc, const char **argv, const struct poptOption *table)
{
    if (lists_only)
        list(table);
    poptContext context = poptGetContext(program, argc, argv, table, 0);
    if (context == NULL)
        error_print(who, "arguments", "cannot be read: out of memory");
    return context;
}

static bool takes_text(const struct poptOption *table, const char *word)
{
    for (; table->longName != NULL; table++) {
        const bool is_long = word[1] == '-' && strcmp(word + 2, table->longName) == 0;
        const bool is_short = word[1] == table->shortName && word[2] == '\0';
        if ((is_long || is_short) && table->argInfo == POPT_ARG_STRING)
            return true;
    }
    return false;
}

/* Whether some argument is neither an option nor the text of one. */
static bool has_plain_argument(int argc, const char **argv, const struct poptOption *table)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0)
            return i + 1 < argc;
        if (argv[i][0] != '-' || argv[i][1] == '\0')
            return true;
        i += takes_text(table, argv[i]);
    }
    return false;
}

int options_take(poptContext context, int argc, const char **argv, const struct poptOption *table, char **const values[])
{
    int option;
    while ((option = poptGetNextOpt(context)) > 0) {
        free(*values[option - 1]);
        *values[option - 1] = poptGetOptArg(context);
        if (*values[option - 1] == NULL) /* popt had no memory for it, and goes on */
            break;
    }
    /* Without memory for a list of the others popt goes on as well, as if there were none. */
    if (option > 0 || (option == -1 && poptPeekArg(context) == NULL && has_plain_argument(argc, argv, table))) {
        program_lacks_memory();
        return POPT_ERROR_MALLOC;
    }
    return option;
}

bool options_read_bytes(const char *text, uint64_t *bytes)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = { { "", 1 },
                  { "b", 1 },
                  { "k", UINT64_C(1) << 10 },
                  { "kib", UINT64_C(1) << 10 },
                  { "m", UINT64_C(1) << 20 },
                  { "mib", UINT64_C(1) << 20 },
                  { "g", UINT64_C(1) << 30 },
                  { "gib", UINT64_C(1) << 30 },
                  { "t", UINT64_C(1) << 40 },
                  { "tib", UINT64_C(1) << 40 },
                  { "kb", UINT64_C(1000) },
                  { "mb", UINT64_C(1000000) },
                  { "gb", UINT64_C(1000000000) },
                  { "tb", UINT64_C(1000000000000) } };
    uint64_t whole = 0, fraction = 0, parts = 1;
    const char *c = text;
    bool good = *c >= '0' && *c <= '9';
    for (; *c >= '0' && *c <= '9' && good; c++)
        good = !__builtin_mul_overflow(whole, (uint64_t)10, &whole) && !__builtin_add_overflow(whole, (uint64_t)(*c - '0'), &whole);
    if (good && *c == '.') {
        for (c++; *c >= '0' && *c <= '9'; c++) {
            if (parts < 1000000) { /* further digits are less than a byte of a megabyte */
                fraction = 10 * fraction + (uint64_t)(*c - '0');
                parts *= 10;
            }
        }
    }
    if (*c == ' ')
        c++;
    size_t unit = 0;
    while (unit < sizeof units / sizeof units[0] && strcasecmp(c, units[unit].name) != 0)
        unit++;
    good = good && unit < sizeof units / sizeof units[0];
    if (good) { /* fraction < parts <= 10^6, and no unit is above 2^40: no overflow in the second product */
        const uint64_t rest = units[unit].bytes / parts * fraction + units[unit].bytes % parts * fraction / parts;
        good = !__builtin_mul_overflow(whole, units[unit].bytes, bytes) && !__builtin_add_overflow(*bytes, rest, bytes);
    }
    return good;
}
