# SPDX-License-Identifier: MIT
# Debian packages by `cpack -G DEB`: a library and its -dev, the same for models' sizes, and the commands. Debian's rules name a library's package after
# its soname, so that two versions can be there at the same time.
set(soname ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
set(KVT_MAINTAINER "kvtile contributors <kvtile@users.noreply.github.com>" CACHE STRING "Who made the packages, as Debian writes it")
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME kvtile)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT ${KVT_MAINTAINER})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL library library_dev model model_dev commands)
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_BINARY_DIR}/KvtDebian.cmake)
set(CPACK_POST_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/tools/debian/KvtDebianEnd.cmake)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # it would come before that of each package

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/kernels ${PROJECT_BINARY_DIR}/tools/model)

# kvt_package(COMPONENT PACKAGE SECTION SUMMARY TEXT [DEPENDS...]): DEPENDS are components.
macro(kvt_package component package section summary text)
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${package})
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section})
  set(CPACK_COMPONENT_${upper}_DESCRIPTION "${summary}\n${text}")
  set(CPACK_COMPONENT_${upper}_DEPENDS ${ARGN})
  set(CPACK_DEBIAN_${upper}_PACKAGE_SHLIBDEPS ON)
endmacro()
kvt_package(library libkvtile${soname} libs "KV caches of language models in fewer bytes"
            "Stores the KV cache of a language model in a quarter to a half of its\nbytes and computes attention straight from them, with the same bits on\nevery CPU.")
kvt_package(library_dev libkvtile-dev libdevel "KV caches of language models in fewer bytes - development files"
            "Headers, the static library, and what pkg-config and CMake need." library)
kvt_package(model libkvtile-model${soname} libs "exact sizes of language models' KV caches"
            "Reads config.json or a GGUF file, and says how many bytes the KV cache\ntakes in the formats of several engines." library)
kvt_package(model_dev libkvtile-model-dev libdevel "exact sizes of language models' KV caches - development files"
            "The header, the static library, and what pkg-config and CMake need." model library_dev)
kvt_package(commands kvtile science "bytes, accuracy and speed of language models' KV caches"
            "The command kvtile sizes the KV cache of a model, measures what\nquantising it costs, and how fast that is. kvtile-engine is an example of\nan engine." library)
set(CPACK_DEBIAN_LIBRARY_DEV_PACKAGE_DEPENDS libsleef-dev)
set(CPACK_DEBIAN_MODEL_DEV_PACKAGE_DEPENDS libjansson-dev)
set(CPACK_DEBIAN_LIBRARY_DEV_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_MODEL_DEV_PACKAGE_SHLIBDEPS OFF)

# kvt_symbols(COMPONENT LIBRARY NAMES): which version brought which name. The list of names says "# since VERSION" before those that came later.
function(kvt_symbols component library list)
  set(since ${soname}.0)
  set(text "${library}.so.${soname} ${library}${soname} #MINVER#\n")
  file(STRINGS ${list} names)
  foreach(name IN LISTS names)
    if(name MATCHES "^# since (.*)$")
      set(since ${CMAKE_MATCH_1})
    elseif(NOT name MATCHES "^#")
      string(APPEND text " ${name}@Base ${since}\n")
    endif()
  endforeach()
  set(control ${PROJECT_BINARY_DIR}/debian/${component})
  file(WRITE ${control}/symbols "${text}")
  file(WRITE ${control}/shlibs "${library} ${soname} ${library}${soname} (>= ${since})\n")
  file(WRITE ${control}/triggers "activate-noawait ldconfig\n")
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_CONTROL_EXTRA ${control}/symbols ${control}/shlibs ${control}/triggers PARENT_SCOPE)
endfunction()
kvt_symbols(library libkvtile ${PROJECT_SOURCE_DIR}/tests/lib/names.txt)
kvt_symbols(model libkvtile-model ${PROJECT_SOURCE_DIR}/tests/model/names.txt)

# What every package has in /usr/share/doc.
file(READ LICENSE licence)
string(REGEX REPLACE "^MIT License\n\n[^\n]*\n\n" "" licence "${licence}")
string(STRIP "${licence}" licence)
string(REPLACE "\n\n" "\n.\n" licence "${licence}")
string(REPLACE "\n" "\n " licence " ${licence}")
configure_file(tools/debian/copyright.in ${PROJECT_BINARY_DIR}/debian/copyright @ONLY)
execute_process(COMMAND date -R -u -d "${KVT_RELEASE_DAY}" OUTPUT_VARIABLE release_date OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
configure_file(tools/debian/changelog.in ${PROJECT_BINARY_DIR}/debian/changelog @ONLY)
configure_file(tools/debian/KvtDebian.cmake.in ${PROJECT_BINARY_DIR}/KvtDebian.cmake @ONLY)
include(CPack)
