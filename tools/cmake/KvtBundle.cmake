# SPDX-License-Identifier: MIT
# An archive of the commands and the libraries that is unpacked anywhere, and needs nothing but the system's C library, or not even that.
set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_FILE_NAME kvtile-${PROJECT_VERSION}-${KVT_BUNDLE_NAME})
set(CPACK_PACKAGING_INSTALL_PREFIX "")
set(CPACK_STRIP_FILES ON)
install(FILES LICENSE docs/platforms.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT commands)
if(TARGET kvt_ggml)
  install(TARGETS kvt_ggml DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT commands)
endif()
include(CPack)
