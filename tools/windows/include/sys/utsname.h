/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_SYS_UTSNAME_H
#define KVT_WINDOWS_SYS_UTSNAME_H

struct utsname {
    char machine[65]; /* what the CPU calls itself */
};
int uname(struct utsname *system);

#endif
