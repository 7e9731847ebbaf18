/* SPDX-License-Identifier: MIT */
#include <kvtile/attend.h>

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

const char *kvt_version(void)
{
    return TEXT(KVT_VERSION_MAJOR) "." TEXT(KVT_VERSION_MINOR) "." TEXT(KVT_VERSION_PATCH);
}

const char *kvt_status_text(kvt_status status)
{
    switch (status) {
    case KVT_OK:
        return "success";
    case KVT_ERR_NULL:
        return "a pointer that must not be NULL is NULL";
    case KVT_ERR_STRUCT_SIZE:
        return "a struct's size field is not that of this version or of an older one; set it to sizeof the struct";
    case KVT_ERR_SCHEME:
        return "no such scheme; kvt_scheme_at lists them";
    case KVT_ERR_DIM:
        return "a row width is outside 1.." TEXT(KVT_MAX_DIM) " (v_dim and rope_dim may be 0, and one of them is)";
    case KVT_ERR_HEADS:
        return "kv_heads is outside 1.." TEXT(KVT_MAX_HEADS);
    case KVT_ERR_TIER:
        return "a tier is unknown, not built in, or not supported by this CPU; kvt_tiers_usable tells which are";
    case KVT_ERR_DTYPE:
        return "no such number format of rows; KVT_F32, KVT_F16 and KVT_BF16 are known";
    case KVT_ERR_SIDE:
        return "side is none of KVT_K, KVT_V and KVT_ROPE, or the layout has no such side";
    case KVT_ERR_STRIDE:
        return "a stride is too small: rows or pages would overlap";
    case KVT_ERR_RANGE:
        return "a number is out of range: tokens beyond the pages, or not from a page's first on though pages have centres of their own, an "
               "attention's end or position that is 0 and may not be, a head beyond the layout, a chunk or worker beyond the last, a block beyond "
               "its "
               "pool, a workspace that is too small or not aligned, an unknown engine, or no sequences";
    case KVT_ERR_OVERFLOW:
        return "the number of bytes does not fit the type that would hold it";
    case KVT_ERR_MODEL:
        return "a model has no layer groups, or one that lacks a field its kind needs or has one its kind does not use";
    case KVT_ERR_LAYOUT:
        return "a layout was not made by kvt_layout_init, or was changed afterwards";
    case KVT_ERR_OPTIONS:
        return "a side's options have a rotation other than 0, 64 and 128, a centring or effort that does not exist, or an FP8 scale that the scheme "
               "does not have; or a row's options a rounding or global scale that the format does not have";
    case KVT_ERR_FORMAT:
        return "no such row format; kvt_row_format_at lists them";
    case KVT_ERR_ENGINE:
        return "the engine cannot store the model this way; kvt_size_problem says why";
    case KVT_ERR_BUDGET:
        return "nothing fits into that many bytes";
    case KVT_ERR_GROUP:
        return "a group of query heads is outside 1.." TEXT(KVT_MAX_GROUP) ", or there are no query tokens";
    case KVT_ERR_SEGMENTS:
        return "there are no segments, or they do not follow each other at multiples of 64 tokens, or their widths or rotations differ";
    case KVT_ERR_NUMBER:
        return "scale or soft_cap is not a finite number of magnitude 2^-20 to 2^20 (soft_cap may be 0: none)";
    case KVT_ERR_FULL:
        return "there is no free block, or no free sequence, in the cache";
    case KVT_ERR_SEQUENCE:
        return "the cache has no such sequence, or rows of it wait for kvt_cache_work";
    case KVT_ERR_DATA:
        return "bytes are no saved sequence, or were damaged, or belong to another model or layout";
    case KVT_ERR_IO:
        return "the caller's function could not read or write";
    case KVT_ERR_FILE:
        return "a file cannot be read or is not in order; the function's message says what would be right";
    case KVT_ERR_NAME:
        return "there is no file, folder or built-in model of that name; kvt_catalogue_at lists the models";
    case KVT_ERR_MEMORY:
        return "there is not enough memory";
    }
    return "unknown status";
}
