# SPDX-License-Identifier: MIT
# Reads arch/isa.def, so that a new row needs no change here.

# The C preprocessor cuts away the rows of other architectures.
set(preprocess ${CMAKE_C_COMPILER})
if(CMAKE_C_COMPILER_ID MATCHES Clang AND CMAKE_C_COMPILER_TARGET)
  list(APPEND preprocess --target=${CMAKE_C_COMPILER_TARGET})
endif()
if(KVT_FEW_TIERS)
  add_compile_definitions(KVT_FEW_TIERS)
  list(APPEND preprocess -DKVT_FEW_TIERS)
endif()
if(KVT_NO_AVX512)
  add_compile_definitions(KVT_NO_AVX512)
  list(APPEND preprocess -DKVT_NO_AVX512)
endif()
execute_process(COMMAND ${preprocess} -E -P -x c ${PROJECT_SOURCE_DIR}/arch/isa.def OUTPUT_VARIABLE rows COMMAND_ERROR_IS_FATAL ANY)
# zig cc names CPUs alone.
include(CheckCCompilerFlag)
check_c_compiler_flag(-march=armv8-a KVT_TAKES_MARCH)
set(KVT_TIERS "")
set(word "[a-z0-9]+")
string(REGEX MATCHALL "KVT_TIER_ROW\\([^)]*\\)" rows "${rows}")
foreach(row IN LISTS rows)
  if(NOT row MATCHES "\\((${word}), *[0-9]+, *(${word}), *\"([a-z0-9 ]*)\",[ \n]*\"([^\"]*)\",([^)]*)\\)")
    message(FATAL_ERROR "arch/isa.def has a row that is none: ${row}")
  endif()
  set(tier ${CMAKE_MATCH_1})
  list(APPEND KVT_TIERS ${tier})
  set(KVT_TIER_${tier}_FOLDER ${CMAKE_MATCH_2})
  separate_arguments(KVT_TIER_${tier}_BRINGS UNIX_COMMAND "${CMAKE_MATCH_3}")
  set(flags "${CMAKE_MATCH_4}")
  set(needs "${CMAKE_MATCH_5}")
  if(flags MATCHES "-march=arm" AND NOT KVT_TAKES_MARCH)
    string(REGEX REPLACE "-march=armv[0-9.]*-a" "-mcpu=generic" flags "${flags}")
  endif()
  separate_arguments(KVT_TIER_${tier}_FLAGS UNIX_COMMAND "${flags}")
  string(REGEX MATCHALL "CPU_[A-Z0-9]+" KVT_TIER_${tier}_NEEDS "${needs}")
endforeach()

if(NOT KVT_TIERS)
  message(FATAL_ERROR "arch/isa.def has no tier for ${CMAKE_SYSTEM_PROCESSOR}")
endif()
set_property(DIRECTORY ${PROJECT_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS arch/isa.def)
message(STATUS "Tiers: ${KVT_TIERS}")

# kvt_tier_brings(VAR TIER GROUP): whether TIER has kernels of GROUP of its own.
function(kvt_tier_brings var tier group)
  set(${var} OFF PARENT_SCOPE)
  if(group IN_LIST KVT_TIER_${tier}_BRINGS OR "all" IN_LIST KVT_TIER_${tier}_BRINGS)
    set(${var} ON PARENT_SCOPE)
  endif()
endfunction()

# kvt_tier_inherits(VAR TIER GROUP): whose kernels of GROUP the tier has: its own, or those of the nearest row above that brings them and needs no
# more than TIER does.
function(kvt_tier_inherits var tier group)
  list(FIND KVT_TIERS ${tier} at)
  while(at GREATER_EQUAL 0)
    list(GET KVT_TIERS ${at} other)
    set(missing ${KVT_TIER_${other}_NEEDS})
    list(REMOVE_ITEM missing ${KVT_TIER_${tier}_NEEDS} "")
    kvt_tier_brings(has_it ${other} ${group})
    if(has_it AND NOT missing)
      set(${var} ${other} PARENT_SCOPE)
      return()
    endif()
    math(EXPR at "${at} - 1")
  endwhile()
  message(FATAL_ERROR "No tier that ${tier} could inherit ${group} from brings it")
endfunction()

# kvt_add_objects_of_tier(TARGET TIER SOURCE...): an object library with that tier's lanes and flags.
# No link-time optimisation: it could move wide instructions into code that runs on every CPU. No unwind tables, which would be a twentieth of the
# library: nothing that kernels call comes back another way. Functions begin at cache lines, so that how fast a loop is does not hang on the size of
# what stands before it: up to 39 % of reading kv6 did.
# Sanitizers instrument every inlined lane; optimising that takes minutes a file, and of the scalar tier, whose lanes are loops, even more.
function(kvt_add_objects_of_tier target tier)
  set(last_flags "")
  set(unrolling "")
  if(CMAKE_C_COMPILER_ID MATCHES Clang)
    set(unrolling -Wno-pass-failed) # a loop that is asked to be unrolled and is not, as on the scalar tier, is no defect
  endif()
  if(CMAKE_C_FLAGS MATCHES "-fsanitize")
    set(last_flags -O1)
    if(tier STREQUAL scalar)
      set(last_flags -Og)
    endif()
  endif()
  add_library(${target} OBJECT ${ARGN})
  target_link_libraries(${target} PRIVATE kvt_compile)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/arch/${KVT_TIER_${tier}_FOLDER})
  target_compile_options(${target} PRIVATE $<IF:$<CONFIG:Debug>,-Og,-O3> -fno-lto -fno-asynchronous-unwind-tables -fno-unwind-tables -falign-functions=32 ${unrolling} ${KVT_TIER_${tier}_FLAGS} ${last_flags})
  target_compile_definitions(${target} PRIVATE KVT_TIER=${tier})
endfunction()

# kvt_add_tier_objects(PREFIX SOURCE...): one object library PREFIX_<tier> for each tier.
function(kvt_add_tier_objects prefix)
  foreach(tier IN LISTS KVT_TIERS)
    kvt_add_objects_of_tier(${prefix}_${tier} ${tier} ${ARGN})
  endforeach()
endfunction()
