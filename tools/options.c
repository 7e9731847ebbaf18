#include "tools/options.h"

#include "tools/program/program.h"

#include <stdlib.h>

int options_take(poptContext context, char **const values[])
{
    int option;
    while ((option = poptGetNextOpt(context)) > 0) {
        free(*values[option - 1]);
        *values[option - 1] = poptGetOptArg(context);
        if (*values[option - 1] == NULL) { /* popt had no memory for it, and goes on */
            program_lacks_memory();
            return POPT_ERROR_MALLOC;
        }
    }
    return option;
}
