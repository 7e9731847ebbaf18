/* What is wrong with an input, as one line for people: "<field> is <value>: <what would be right>", without the name of the file. */
#ifndef KVT_TOOLS_ERROR_H
#define KVT_TOOLS_ERROR_H

typedef struct error_text {
    char text[400];
} error_text;

/* Always returns -1, so that a function can fail with `return error_set(...)`. */
__attribute__((format(printf, 2, 3))) int error_set(error_text *error, const char *format, ...);

/* Prints "who: argument: text" on stderr, as one line whatever bytes a file name holds. */
void error_print(const char *who, const char *argument, const char *text);

/* Replaces control characters, so that `text` stays on one line. */
void error_one_line(char *text);

#endif
