# avsbg_enable_cuda(): enables CUDA where a compiler for it works. Sets, in the caller's scope, AVSBG_CUDA_PROBLEM: why
# there is none, or empty. A macro, since a language is enabled for the directory that calls it and those below.
macro(avsbg_enable_cuda)
  set(AVSBG_CUDA_PROBLEM "")
  # An installed toolkit is found even where its bin folder is not on PATH (the rule on Jetson).
  find_program(AVSBG_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  mark_as_advanced(AVSBG_NVCC)
  if(AVSBG_NVCC AND NOT DEFINED ENV{CUDACXX})
    set(ENV{CUDACXX} ${AVSBG_NVCC})
  endif()
  if(AVSBG_CUDA)
    # An earlier look for a compiler may have found none; it may have been installed since.
    if(NOT CMAKE_CUDA_COMPILER)
      unset(CMAKE_CUDA_COMPILER CACHE)
    endif()
    check_language(CUDA)
  endif()
  if(NOT AVSBG_CUDA)
    set(AVSBG_CUDA_PROBLEM "CUDA was switched off (AVSBG_CUDA=OFF).")
  elseif(CMAKE_CUDA_COMPILER)
    # Set before the language is enabled, or CMake picks an old default that new compilers reject.
    set(CMAKE_CUDA_ARCHITECTURES OFF)
    enable_language(CUDA)
    message(STATUS "avsbg: CUDA compiler ${CMAKE_CUDA_COMPILER} (${CMAKE_CUDA_COMPILER_VERSION})")
  else()
    set(AVSBG_CUDA_PROBLEM "No CUDA compiler that works was found: install the CUDA toolkit 12.6 or later, or set the environment variable CUDACXX to its nvcc, and reinstall. In a checkout, `make cuda` fetches one.")
  endif()
endmacro()
