#include "tools/io/error.h"

#include <stdarg.h>
#include <stdio.h>

void error_one_line(char *text)
{
    for (; *text != '\0'; text++) {
        const unsigned char byte = (unsigned char)*text;
        if (byte < 0x20 || byte == 0x7f)
            *text = '?';
    }
}

int error_set(error_text *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    error_one_line(error->text);
    return -1;
}

void error_print(const char *who, const char *argument, const char *text)
{
    char line[5000]; /* a path may have 4096 bytes */
    snprintf(line, sizeof line, "%s: %s: %s", who, argument, text);
    error_one_line(line);
    fprintf(stderr, "%s\n", line);
}
