/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_DLFCN_H
#define KVT_WINDOWS_DLFCN_H

#define RTLD_NOW    0
#define RTLD_GLOBAL 0
void *dlopen(const char *path, int flags);
void *dlsym(void *library, const char *name);
const char *dlerror(void);

#endif
