# SPDX-License-Identifier: MIT
# Debian's mingw-w64; programs run under Wine.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(CMAKE_CROSSCOMPILING_EMULATOR ${CMAKE_CURRENT_LIST_DIR}/../../tests/windows/wine.sh)
# Programs need no DLL but those of Windows.
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
# Of the headers of the system that it builds on this alone, which needs no other.
file(COPY /usr/include/xxhash.h DESTINATION ${CMAKE_BINARY_DIR}/include)
set(KVT_XXHASH_INCLUDE ${CMAKE_BINARY_DIR}/include CACHE PATH "Folder of xxhash.h")
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
