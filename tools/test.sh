#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds everything and runs the tests on this machine, on every tier that its CPU has.
#   tools/test.sh [PRESET [CMAKE_ARGUMENT...]]    the preset is dev unless said otherwise: CMakePresets.json
set -eu
cd "$(dirname "$0")/.."

# shellcheck source=tools/packages.sh
. tools/packages.sh
# shellcheck disable=SC2086
kvt_install_packages $KVT_PACKAGES_BUILD $KVT_PACKAGES_TEST

preset=${1:-dev}
if [ $# -gt 0 ]; then
    shift
fi
cmake --preset "$preset" -DKVT_BUILD_TESTS=ON "$@"
cmake --build --preset "$preset"
ctest --preset "$preset"
