/* A cache whose rows become what storing leaves of them, as an engine would have them: an open page that is filled token by token, pages that are
 * stored when they are full, in the order of a sequence, and a first page of its own. */
#ifndef KVT_EVAL_STORED_H
#define KVT_EVAL_STORED_H

#include "tools/cli/eval/eval.h"
#include "tools/engine/cache.h"

/* A page of one head, for rows that go through a scheme by themselves. */
typedef struct eval_single {
    bool used;
    kvt_layout layout;
    unsigned char *memory;
    kvt_pages pages;
} eval_single;

typedef struct eval_stored {
    kv_cache *cache; /* of the reference */
    const eval_pair *way;
    uint32_t first_layer, layers;
    bool sides[2];         /* keys, values */
    kvt_layout layout;     /* of the sides that are not in other engines' formats */
    unsigned char *memory; /* [layer][kv head][page] */
    kvt_pages *pages;      /* [layer][kv head] */
    eval_single first, open;
    float *peer_rows; /* of a unit of a format of others */
    bool lost;        /* a finite row of the sequence has not stayed finite */
    bool failed;      /* since, and why: */
    error_text error;
} eval_stored;

/* How a model's rows are stored in a way. */
int eval_stored_layout(kvt_layout *layout, const eval_pair *way, const checkpoint *model, error_text *error);

/* From now on rows that are appended to `cache` are stored: those of the layers and sides that `to` says; all else in it is zero. `first` and
 * `open`: schemes of the first page and the open one, or KVT_SCHEME_NONE: as the others, and no open page. Cache and way must outlive the cache's
 * use. 0, or -1 with the error; eval_stored_close is due in any case. */
int eval_stored_open(eval_stored *to, kv_cache *cache, const eval_pair *way, kvt_scheme first, kvt_scheme open, error_text *error);
void eval_stored_close(eval_stored *to);

/* Bits of an element, of all pages of a sequence of `tokens` tokens, whose last page still counts as open. */
double eval_stored_bits(const eval_stored *of, size_t tokens);

#endif
