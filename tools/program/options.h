/* SPDX-License-Identifier: MIT */
/* What the programs share in reading their arguments with popt. */
#ifndef KVT_TOOLS_OPTIONS_H
#define KVT_TOOLS_OPTIONS_H

#include <popt.h>
#include <stdbool.h>
#include <stdint.h>

/* A context for the arguments of `program`, to be given to poptFreeContext. NULL without memory: `who` has said so then. */
poptContext options_open(const char *who, const char *program, int argc, const char **argv, const struct poptOption *table);

/* From now on options_open prints the table, a line for each option, and ends the program: shells complete by it. */
void options_list_only(void);

/* Takes all options of a context that was made of the same arguments and table. The text of one whose `val` is i (1, 2 ...) goes to *values[i - 1]:
 * NULL or malloc'ed before and after, the caller frees it. Of several the last counts, where popt by itself would leak the others. Returns what popt
 * ended with: -1, or less for an error. */
int options_take(poptContext context, int argc, const char **argv, const struct poptOption *table, char **const values[]);

/* A number, perhaps with decimals, and a unit: B, KiB .. TiB, KB .. TB. K .. T are binary, as in llama.cpp and vLLM. False: it is none, or not below
 * 2^64. */
bool options_read_bytes(const char *text, uint64_t *bytes);

#endif
