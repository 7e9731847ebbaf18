#include "tools/program/options.h"

#include "tools/files/error.h"
#include "tools/program/program.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

poptContext options_open(const char *who, const char *program, int argc, const char **argv, const struct poptOption *table)
{
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
