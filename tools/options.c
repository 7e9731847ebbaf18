#include "tools/options.h"

#include <stdlib.h>

int options_take(poptContext context, char **const values[])
{
    int option;
    while ((option = poptGetNextOpt(context)) > 0) {
        free(*values[option - 1]);
        *values[option - 1] = poptGetOptArg(context);
    }
    return option;
}
