# Options, warnings, language level: everything that holds for all of the project's own code.
option(NPUC_WERROR "Warnings are errors" OFF)
option(NPUC_SHARED "Also build shared libraries" ON)
option(NPUC_TESTS "Build the tests" ON)
set(NPUC_SANITIZE "" CACHE STRING "Value for -fsanitize=, e.g. address,undefined or thread")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(simd_default avx2)
else()
  set(simd_default scalar)
endif()
set(NPUC_SIMD ${simd_default} CACHE STRING "avx2: forms for AVX2 and AVX-512, chosen at run time where the CPU has them; scalar: portable C only")
set_property(CACHE NPUC_SIMD PROPERTY STRINGS avx2 scalar)
if(NOT NPUC_SIMD MATCHES "^(avx2|scalar)$")
  message(FATAL_ERROR "NPUC_SIMD is '${NPUC_SIMD}', expected avx2 or scalar")
endif()

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
# Assertions stay on in Release; -DNPUC_NO_ASSERT removes them.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-O0 -g3")
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(npuc_flags INTERFACE)
# Contraction is off because results must not depend on the compiler: fused operations are written out.
target_compile_options(npuc_flags INTERFACE
  -std=c11 -ffp-contract=off -fno-math-errno
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wundef -Wvla
  -Wwrite-strings -Wcast-qual -Wformat=2 -Wimplicit-fallthrough -Wdouble-promotion -Werror=implicit-function-declaration
  $<$<BOOL:${NPUC_WERROR}>:-Werror>)
target_compile_definitions(npuc_flags INTERFACE _DEFAULT_SOURCE _FILE_OFFSET_BITS=64)
target_include_directories(npuc_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include ${PROJECT_BINARY_DIR})
if(NPUC_SIMD STREQUAL scalar)
  target_compile_definitions(npuc_flags INTERFACE NPUC_SCALAR_ONLY)
endif()
if(NPUC_SANITIZE)
  # -O1 and line numbers alone: the build takes half of the time, and what it runs is short.
  add_compile_options(-fsanitize=${NPUC_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g1)
  # What is read before it is written is never zero by luck.
  include(CheckCCompilerFlag)
  check_c_compiler_flag(-ftrivial-auto-var-init=pattern NPUC_HAVE_AUTO_INIT)
  if(NPUC_HAVE_AUTO_INIT)
    add_compile_options(-ftrivial-auto-var-init=pattern)
  endif()
  add_link_options(-fsanitize=${NPUC_SANITIZE})
endif()

# Tests in Python use the environment that tools/setup.sh makes.
if(NOT Python3_EXECUTABLE AND EXISTS ${PROJECT_SOURCE_DIR}/build/venv/bin/python)
  set(Python3_EXECUTABLE ${PROJECT_SOURCE_DIR}/build/venv/bin/python CACHE FILEPATH "Python for tests")
endif()

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
