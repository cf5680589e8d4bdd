# avsbg_find_tensorrt_headers(): where TensorRT's headers are. Sets, in the caller's scope,
#   AVSBG_TENSORRT_HEADERS  the directory of NvInferRuntime.h, or empty
#   AVSBG_TENSORRT_VERSION  their version
#   AVSBG_TENSORRT_PROBLEM  why there are none, when there are none
# The plugin needs headers only, so the libraries need not be installed. Looked for, in this order:
#   1. -DAVSBG_TENSORRT_INCLUDE_DIR=DIR
#   2. a system TensorRT (JetPack, Debian package, container), or one below the environment variable TENSORRT_ROOT
#   3. the package kernel-lens, which ships them under Apache-2.0, in this Python environment
#   4. the same package, fetched by pip into the build directory (its file only, pinned and checked by hash), unless
#      -DAVSBG_FETCH_TENSORRT_HEADERS=OFF

set(AVSBG_TENSORRT_INCLUDE_DIR "" CACHE PATH "Directory of NvInferRuntime.h; empty: search")
option(AVSBG_FETCH_TENSORRT_HEADERS "Fetch TensorRT's headers with pip where they are not installed" ON)

set(_avsbg_header_requirements ${CMAKE_CURRENT_LIST_DIR}/tensorrt-headers.txt)

function(_avsbg_fetch_tensorrt_headers result)
  set(${result} "" PARENT_SCOPE)
  set(folder ${PROJECT_BINARY_DIR}/tensorrt-headers)
  set(include ${folder}/kernel_lens/include/tensorrt)
  if(NOT EXISTS ${include}/NvInferRuntime.h)
    message(STATUS "avsbg: fetching TensorRT's headers (package kernel-lens, 0.2 MB) with pip")
    # -I: inside an isolated build, PYTHONPATH hides the pip of the environment that is being installed to.
    execute_process(
      COMMAND ${Python_EXECUTABLE} -I -m pip download --quiet --no-deps --only-binary :all: --require-hashes
              --requirement ${_avsbg_header_requirements} --dest ${folder}
      RESULT_VARIABLE status ERROR_VARIABLE errors OUTPUT_QUIET)
    if(NOT status EQUAL 0)
      message(STATUS "avsbg: pip could not fetch them: ${errors}")
      return()
    endif()
    file(GLOB wheel ${folder}/kernel_lens-*.whl)
    file(ARCHIVE_EXTRACT INPUT ${wheel} DESTINATION ${folder} PATTERNS "kernel_lens/include/tensorrt/*")
  endif()
  set(${result} ${include} PARENT_SCOPE)
endfunction()

function(_avsbg_tensorrt_version header result)
  file(STRINGS ${header} lines REGEX "^#define (NV_TENSORRT|TRT)_(MAJOR|MINOR|PATCH)(_ENTERPRISE)? [0-9]+")
  set(version "")
  foreach(part IN ITEMS MAJOR MINOR PATCH)
    if(NOT "${lines}" MATCHES "_${part}(_ENTERPRISE)? ([0-9]+)")
      message(FATAL_ERROR "avsbg: ${header} does not define TensorRT's ${part} version")
    endif()
    list(APPEND version ${CMAKE_MATCH_2})
  endforeach()
  list(JOIN version "." version)
  set(${result} ${version} PARENT_SCOPE)
endfunction()

function(avsbg_find_tensorrt_headers)
  set(directory "")
  if(AVSBG_TENSORRT_INCLUDE_DIR)
    if(NOT EXISTS ${AVSBG_TENSORRT_INCLUDE_DIR}/NvInferRuntime.h)
      message(FATAL_ERROR "avsbg: AVSBG_TENSORRT_INCLUDE_DIR=${AVSBG_TENSORRT_INCLUDE_DIR} has no NvInferRuntime.h")
    endif()
    set(directory ${AVSBG_TENSORRT_INCLUDE_DIR})
  endif()
  if(NOT directory)
    find_path(AVSBG_SYSTEM_TENSORRT NvInferRuntime.h
      HINTS ENV TENSORRT_ROOT
      PATHS /usr/local/tensorrt /opt/tensorrt
      PATH_SUFFIXES include)
    mark_as_advanced(AVSBG_SYSTEM_TENSORRT)
    if(AVSBG_SYSTEM_TENSORRT)
      set(directory ${AVSBG_SYSTEM_TENSORRT})
    endif()
  endif()
  if(NOT directory)
    find_package(Python COMPONENTS Interpreter QUIET)
    if(Python_EXECUTABLE)
      execute_process(COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('purelib'))"
        OUTPUT_VARIABLE site_packages OUTPUT_STRIP_TRAILING_WHITESPACE)
      if(EXISTS ${site_packages}/kernel_lens/include/tensorrt/NvInferRuntime.h)
        set(directory ${site_packages}/kernel_lens/include/tensorrt)
      elseif(AVSBG_FETCH_TENSORRT_HEADERS)
        _avsbg_fetch_tensorrt_headers(directory)
      endif()
    endif()
  endif()

  set(version "")
  set(problem "")
  if(NOT directory)
    set(problem "No TensorRT headers: install TensorRT, or run 'pip install --no-deps kernel-lens' (which ships them), or set AVSBG_TENSORRT_INCLUDE_DIR.")
  else()
    _avsbg_tensorrt_version(${directory}/NvInferVersion.h version)
    if(version VERSION_LESS 10.3)
      set(problem "The TensorRT headers in ${directory} are of version ${version}, and 10.3 or later is needed.")
      set(directory "")
    endif()
  endif()
  set(AVSBG_TENSORRT_HEADERS "${directory}" PARENT_SCOPE)
  set(AVSBG_TENSORRT_VERSION "${version}" PARENT_SCOPE)
  set(AVSBG_TENSORRT_PROBLEM "${problem}" PARENT_SCOPE)
endfunction()
