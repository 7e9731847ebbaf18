/* SPDX-License-Identifier: MIT */
/* Built against the installed library, by pkg-config and by find_package: tests/lib/check_install.sh. */
#include <kvtile/attend.h>
#include <kvtile/kvtile.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    size_t first, count;
    if (kvt_attend_plan(8, 4, 3, 2, &first, &count) != KVT_OK || first + count != 32)
        return 1;
    printf("kvtile %s\n", kvt_version());
    return strcmp(kvt_scheme_tier(KVT_SCHEME_q8_0, 1), "scalar") != 0;
}
