# SPDX-License-Identifier: MIT
# find_package(kvtile), pkg-config.
include(CMakePackageConfigHelpers)
# Components are what packages are made of (KvtPackages.cmake): each library, what programs that use it are built with, and the commands. Either library
# has an export of its own, as somebody may install one of them alone.
foreach(library kvtile kvtile_model)
  string(REPLACE kvtile_model model component ${library})
  string(REPLACE kvtile library component ${component})
  foreach(target ${library} ${library}_static)
    if(TARGET ${target})
      install(TARGETS ${target} EXPORT ${library}
              LIBRARY COMPONENT ${component} NAMELINK_COMPONENT ${component}_dev
              ARCHIVE COMPONENT ${component}_dev)
    endif()
  endforeach()
endforeach()
install(DIRECTORY include/kvtile DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library_dev PATTERN model.h EXCLUDE PATTERN engines.def EXCLUDE)
install(EXPORT kvtile NAMESPACE kvtile:: FILE kvtile-targets.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvtile COMPONENT library_dev)
if(TARGET kvtile_model)
  install(FILES include/kvtile/model.h include/kvtile/engines.def DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kvtile COMPONENT model_dev)
  install(EXPORT kvtile_model NAMESPACE kvtile:: FILE kvtile-model-targets.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvtile
          COMPONENT model_dev)
endif()
configure_package_config_file(tools/cmake/kvtile-config.cmake.in ${PROJECT_BINARY_DIR}/kvtile-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvtile)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvtile-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvtile-config.cmake ${PROJECT_BINARY_DIR}/kvtile-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvtile COMPONENT library_dev)
# Relocatable as long as the folders are relative to the prefix.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
  set(pc_prefix ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  set(pc_prefix "\${pcfiledir}/${to_prefix}")
endif()
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_LIBDIR BASE_DIRECTORY "\${prefix}" OUTPUT_VARIABLE pc_libdir)
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_INCLUDEDIR BASE_DIRECTORY "\${prefix}" OUTPUT_VARIABLE pc_includedir)
set(pc_sleef "")
if(KVT_SLEEF)
  set(pc_sleef sleef)
endif()
set(pc_names kvtile)
if(TARGET kvtile_model)
  list(APPEND pc_names kvtile-model)
endif()
foreach(name IN LISTS pc_names)
  configure_file(tools/cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  set(component library_dev)
  if(name STREQUAL kvtile-model)
    set(component model_dev)
  endif()
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT ${component})
endforeach()
if(TARGET kvtile_command)
  set(commands kvtile_command)
  if(TARGET kvtile_engine)
    list(APPEND commands kvtile_engine)
  endif()
  # They find the library in the same prefix, wherever that is.
  if(BUILD_SHARED_LIBS AND NOT IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
    file(RELATIVE_PATH to_libraries /prefix/${CMAKE_INSTALL_BINDIR} /prefix/${CMAKE_INSTALL_LIBDIR})
    set_target_properties(${commands} PROPERTIES INSTALL_RPATH $ORIGIN/${to_libraries})
  endif()
  install(TARGETS ${commands} COMPONENT commands)
  # What the programs say of themselves, as manual pages.
  file(STRINGS CHANGELOG.md day REGEX "^## ${PROJECT_VERSION} \\(.*\\)")
  string(REGEX REPLACE ".*\\((.*)\\).*" "\\1" KVT_RELEASE_DAY "${day}")
  if((NOT CMAKE_CROSSCOMPILING OR CMAKE_CROSSCOMPILING_EMULATOR) AND NOT WIN32)
    set(manual ${PROJECT_BINARY_DIR}/manual)
    add_custom_command(OUTPUT ${manual}/made
                       COMMAND sh ${PROJECT_SOURCE_DIR}/tools/shell/manual.sh ${manual} ${PROJECT_VERSION} ${KVT_RELEASE_DAY}
                               $<TARGET_FILE:kvtile_command> $<TARGET_FILE:kvtile_engine> ${CMAKE_CROSSCOMPILING_EMULATOR}
                       COMMAND ${CMAKE_COMMAND} -E touch ${manual}/made
                       DEPENDS kvtile_command kvtile_engine tools/shell/manual.sh VERBATIM)
    add_custom_target(kvtile_manual ALL DEPENDS ${manual}/made)
    install(DIRECTORY ${manual}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT commands FILES_MATCHING PATTERN *.1)
  endif()
  install(FILES tools/shell/kvtile.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT commands RENAME kvtile)
  install(FILES tools/shell/kvtile.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT commands RENAME kvtile-engine)
  install(FILES tools/shell/_kvtile DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions COMPONENT commands)
  install(FILES tools/shell/kvtile.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT commands)
endif()
