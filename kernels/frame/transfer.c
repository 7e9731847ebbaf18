#include "kernels/frame/transfer.h"

kvt_status kvt_transfer_check(const kvt_transfer *t, size_t first_token, size_t n_tokens, const void *rows, size_t row_bytes, ptrdiff_t row_stride)
{
    const kvt_pages *pages = t->pages;
    size_t capacity, end;
    if (__builtin_mul_overflow(pages->count, (size_t)KVT_PAGE_TOKENS, &capacity))
        capacity = SIZE_MAX;
    if (__builtin_add_overflow(first_token, n_tokens, &end) || end > capacity)
        return KVT_ERR_RANGE;
    if (!rows || (!pages->table && !pages->base))
        return KVT_ERR_NULL;
    if (!pages->table && pages->stride < t->page_bytes)
        return KVT_ERR_STRIDE;
    if (!kvt_rows_are_apart(n_tokens, row_bytes, row_stride))
        return KVT_ERR_STRIDE;
    if (pages->table)
        for (size_t p = first_token / KVT_PAGE_TOKENS; p <= (end - 1) / KVT_PAGE_TOKENS; p++)
            if (!pages->table[p])
                return KVT_ERR_NULL;
    return KVT_OK;
}
