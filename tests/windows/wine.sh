#!/bin/sh
# SPDX-License-Identifier: MIT
# wine.sh PROGRAM.exe [ARGUMENT...]: runs it under Wine, which says nothing of its own.
# Addresses are not random where the system lets that be chosen: with random ones Wine 8.0 fails once in some 4,000 starts, as what it needs at a fixed
# address is taken ("failed to map the shared user data: c0000018", exit code 1), or the loader's list of libraries is wrong at the end (exit code 127).
export WINEDEBUG=-all
if setarch --addr-no-randomize true 2>/dev/null; then
    exec setarch --addr-no-randomize wine "$@"
fi
exec wine "$@"
