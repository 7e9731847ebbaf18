/* SPDX-License-Identifier: MIT */
/* Two runs of kvtile bench --json beside each other. */
#ifndef KVT_CLI_BENCH_COMPARE_H
#define KVT_CLI_BENCH_COMPARE_H

/* Prints how much faster each case of the second file is, and what is noise, or the same as JSON. Returns an exit code. */
int bench_compare(const char *who, const char *first, const char *second, int json);

#endif
