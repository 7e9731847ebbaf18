/* SPDX-License-Identifier: MIT */
#include "tools/cli/size/size.h"

#include <stdlib.h>

int size_plot(const size_question *question, const char *path)
{
    (void)question;
    size_say(path, "cannot be drawn: gnuplot is not called on Windows; --json, and a drawing program, would be right");
    return EXIT_FAILURE;
}
