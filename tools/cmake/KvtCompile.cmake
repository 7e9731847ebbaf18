# SPDX-License-Identifier: MIT
# Compiler settings of everything that is ours.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(kvt_compile INTERFACE)
target_include_directories(kvt_compile INTERFACE ${PROJECT_SOURCE_DIR})
# Contracted or reordered float operations would make the bits depend on the compiler.
target_compile_options(kvt_compile INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Wvla -Wstrict-prototypes
                                             -Wmissing-prototypes -Wcast-qual -ffp-contract=off -fno-fast-math -fno-math-errno)
if(KVT_SLEEF)
  target_compile_definitions(kvt_compile INTERFACE KVT_SLEEF)
endif()
# gcc for Windows keeps registers of 32 and 64 bytes in a stack that is aligned to 16 (GCC bug 54412): moves must not ask for alignment.
if(WIN32)
  target_compile_definitions(kvt_compile INTERFACE __USE_MINGW_ANSI_STDIO=1) # %zu
  target_compile_options(kvt_compile INTERFACE -Wno-format -Wno-float-conversion) # formats are taken for msvcrt's; isfinite of doubles warns
endif()
if(WIN32 AND CMAKE_C_COMPILER_ID STREQUAL GNU)
  target_compile_options(kvt_compile INTERFACE -Wa,-muse-unaligned-vector-move)
endif()
if(KVT_WERROR)
  target_compile_options(kvt_compile INTERFACE -Werror)
endif()
