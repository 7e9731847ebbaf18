/* Built against the installed library, once by pkg-config and once by find_package: tests/lib/check_install.sh. */
#include <kvtile/attend.h>
#include <kvtile/kvtile.h>
#include <kvtile/size.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    const kvt_model *model = kvt_catalogue_find("gemma-4-E2B");
    const kvt_size_request request = {
        .size = sizeof request,
        .engine = KVT_ENGINE_logical,
        .k_type = "f16",
        .v_type = "f16",
        .context = 32768,
        .sequences = 1,
    };
    kvt_size_report report;
    if (!model || kvt_size(model, &request, &report, NULL) != KVT_OK || report.total_bytes != 207618048)
        return 1;
    size_t first, count;
    if (kvt_attend_plan(8, 4, 3, 2, &first, &count) != KVT_OK || first + count != 32)
        return 1;
    printf("kvtile %s\n", kvt_version());
    return strcmp(kvt_scheme_tier(KVT_SCHEME_q8_0, 1), "scalar") != 0;
}
