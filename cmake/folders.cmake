# One object library per folder, and libraries made of folders.

# npuc_folder(F): object library npuc_F of all F/**/*.c, or nothing while the folder is empty.
# Files named *_avx2.c and *_avx512.c are compiled for what their name says and are left out of a scalar build.
function(npuc_folder folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.c)
  if(NPUC_SIMD STREQUAL scalar)
    list(FILTER sources EXCLUDE REGEX "_avx(2|512)\\.c$")
  endif()
  if(NOT sources)
    return()
  endif()
  foreach(source IN LISTS sources)
    if(source MATCHES "_avx2\\.c$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
    elseif(source MATCHES "_avx512\\.c$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        # -O3: loops over registers are written out
        "-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mprefer-vector-width=512;$<$<CONFIG:Release>:-O3>")
    endif()
  endforeach()
  add_library(npuc_${folder} OBJECT ${sources})
  target_link_libraries(npuc_${folder} PRIVATE npuc_flags)
  npuc_protocols(${folder})
endfunction()

# npuc_protocols(F): protobuf-c code for F/*.proto, generated into the build folder as F/<name>.pb-c.[ch] and
# compiled without our warnings.
function(npuc_protocols folder)
  file(GLOB protos CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.proto)
  if(NOT protos)
    return()
  endif()
  find_program(PROTOC_C NAMES protoc-c REQUIRED)
  set(out ${PROJECT_BINARY_DIR}/${folder})
  file(MAKE_DIRECTORY ${out})
  foreach(proto IN LISTS protos)
    get_filename_component(stem ${proto} NAME_WE)
    add_custom_command(OUTPUT ${out}/${stem}.pb-c.c ${out}/${stem}.pb-c.h
      COMMAND ${PROTOC_C} --proto_path=${PROJECT_SOURCE_DIR}/${folder} --c_out=${out} ${proto}
      DEPENDS ${proto} VERBATIM)
    list(APPEND generated ${out}/${stem}.pb-c.c ${out}/${stem}.pb-c.h)
  endforeach()
  add_library(npuc_${folder}_proto OBJECT ${generated})
  target_compile_options(npuc_${folder}_proto PRIVATE -w)
  target_include_directories(npuc_${folder}_proto PRIVATE ${PROJECT_BINARY_DIR})
  add_dependencies(npuc_${folder} npuc_${folder}_proto)
endfunction()

# npuc_library(L FOLDERS): static library target L (and L_shared) of the folders that exist.
function(npuc_library lib folders)
  set(objects "")
  foreach(folder IN LISTS folders)
    foreach(part npuc_${folder} npuc_${folder}_proto)
      if(TARGET ${part})
        list(APPEND objects $<TARGET_OBJECTS:${part}>)
      endif()
    endforeach()
  endforeach()
  if(NOT objects)
    return()
  endif()
  add_library(${lib} STATIC ${objects})
  npuc_library_uses(${lib} "${folders}")
  if(NPUC_SHARED)
    add_library(${lib}_shared SHARED ${objects})
    set(closed "")
    if(NPUC_WERROR AND NOT NPUC_SANITIZE)
      set(closed -Wl,--no-undefined)
    endif()
    set_target_properties(${lib}_shared PROPERTIES OUTPUT_NAME ${lib} VERSION ${PROJECT_VERSION}
      SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/exports.map)
    target_link_options(${lib}_shared PRIVATE
      -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/exports.map
      ${closed})
    npuc_library_uses(${lib}_shared "${folders}")
  endif()
endfunction()

# The runtime library needs libc, libm and pthread; the compiler adds protobuf-c and jansson.
function(npuc_library_uses lib folders)
  set_target_properties(${lib} PROPERTIES LINKER_LANGUAGE C)
  target_include_directories(${lib} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${lib} PUBLIC Threads::Threads m)
  if("frontend" IN_LIST folders)
    pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET GLOBAL libprotobuf-c)
    pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET GLOBAL jansson)
    target_link_libraries(${lib} PUBLIC PkgConfig::PROTOBUF_C PkgConfig::JANSSON)
  endif()
endfunction()
