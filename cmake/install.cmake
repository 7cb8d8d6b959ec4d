# Installation: libraries, headers, target files, pkg-config files, CMake package npuc with npuc::npuc, npuc::npurt.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/npuc)
set(exported "")
foreach(lib npurt npurt_shared npuc npuc_shared)
  if(TARGET ${lib})
    list(APPEND exported ${lib})
  endif()
endforeach()
if(exported)
  install(TARGETS ${exported} EXPORT npucTargets ARCHIVE LIBRARY RUNTIME)
  install(EXPORT npucTargets NAMESPACE npuc:: DESTINATION ${package_dir})
endif()
install(DIRECTORY include/npuc DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(DIRECTORY targets/ DESTINATION ${CMAKE_INSTALL_DATADIR}/npuc/targets FILES_MATCHING PATTERN "*.target")

configure_package_config_file(cmake/npucConfig.cmake.in npucConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(npucConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/npucConfig.cmake ${PROJECT_BINARY_DIR}/npucConfigVersion.cmake
        DESTINATION ${package_dir})
file(RELATIVE_PATH pc_to_prefix /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p) # so that the tree can be moved
foreach(pc npuc npurt)
  configure_file(cmake/${pc}.pc.in ${PROJECT_BINARY_DIR}/${pc}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${pc}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
