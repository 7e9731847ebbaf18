/* SPDX-License-Identifier: MIT */
/* kvtile eval --report: what was measured as one page of HTML, complete in itself. */
#ifndef KVT_EVAL_PAGE_H
#define KVT_EVAL_PAGE_H

#include "tools/rows/rows.h"

#include <jansson.h>

/* Whether a page can go there, asked before the measuring takes its time; "-" is the standard output. 0, or -1 with the error. What is there and is
 * no page stays: it may be an input. */
int eval_page_check(const char *path, error_text *error);

/* What a page shows: `kind` is rows, attention, latent or model; `arguments` are those of the command. Inputs are added to "inputs", and to "results"
 * the objects of --json. NULL: out of memory. */
json_t *eval_page_begin(const char *kind, int n_arguments, const char **arguments);
void eval_page_add_input(json_t *document, const char *name, const char *kind, const rows_tensor *tensor);

/* The page appears when it is complete: neither an error nor an interruption leaves a part of one. 0, or -1 with the error. */
int eval_page_write(const char *path, json_t *document, error_text *error);

#endif
