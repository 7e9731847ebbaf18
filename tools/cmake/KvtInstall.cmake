# find_package(kvtile), pkg-config, soname.
include(CMakePackageConfigHelpers)
install(TARGETS kvtile EXPORT kvtile)
install(DIRECTORY include/kvtile DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT kvtile NAMESPACE kvtile:: FILE kvtile-targets.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvtile)
configure_package_config_file(tools/cmake/kvtile-config.cmake.in ${PROJECT_BINARY_DIR}/kvtile-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvtile)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvtile-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvtile-config.cmake ${PROJECT_BINARY_DIR}/kvtile-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvtile)
# Relocatable as long as the folders are relative to the prefix.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
  set(pc_prefix ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  set(pc_prefix "\${pcfiledir}/${to_prefix}")
endif()
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_LIBDIR BASE_DIRECTORY "\${prefix}" OUTPUT_VARIABLE pc_libdir)
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_INCLUDEDIR BASE_DIRECTORY "\${prefix}" OUTPUT_VARIABLE pc_includedir)
configure_file(tools/cmake/kvtile.pc.in ${PROJECT_BINARY_DIR}/kvtile.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kvtile.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(TARGET kvtile_command)
  install(TARGETS kvtile_command)
endif()
