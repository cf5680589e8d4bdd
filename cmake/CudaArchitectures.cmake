# The GPUs that the CUDA code is compiled for: Turing (75) to Blackwell (121), with Jetson Orin (87) and Thor (110).
set(AVSBG_CUDA_ARCHITECTURES "75;80;86;87;89;90;100;110;120;121" CACHE STRING
  "CUDA architectures to compile for; those that nvcc does not know are left out, with a message")

# avsbg_ptx_architectures(RESULT ARCHITECTURE...): those to keep PTX for, from which a driver compiles for GPUs that have
# no machine code here: the last one for newer GPUs, and the first from 80 on for all between, which 75's code would make
# slow, and which `87;110`, or an nvcc that does not know one of the list, would leave without any.
function(avsbg_ptx_architectures result)
  list(GET ARGN -1 last)
  set(chosen ${last})
  foreach(architecture IN LISTS ARGN)
    if(architecture VERSION_GREATER_EQUAL 80)
      list(PREPEND chosen ${architecture})
      break()
    endif()
  endforeach()
  list(REMOVE_DUPLICATES chosen)
  set(${result} ${chosen} PARENT_SCOPE)
endfunction()

# avsbg_usable_cuda_architectures(RESULT): those of AVSBG_CUDA_ARCHITECTURES that this nvcc knows.
function(avsbg_usable_cuda_architectures result)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE listed)
  string(REGEX MATCHALL "[0-9]+[a-z]?" known "${listed}")
  set(usable "")
  foreach(architecture IN LISTS AVSBG_CUDA_ARCHITECTURES)
    if(architecture IN_LIST known)
      list(APPEND usable ${architecture})
    else()
      message(STATUS "avsbg: nvcc ${CMAKE_CUDA_COMPILER_VERSION} does not know sm_${architecture}: left out")
    endif()
  endforeach()
  if(NOT usable)
    message(FATAL_ERROR "avsbg: nvcc ${CMAKE_CUDA_COMPILER_VERSION} knows none of the architectures "
      "AVSBG_CUDA_ARCHITECTURES=${AVSBG_CUDA_ARCHITECTURES}; it knows ${known}")
  endif()
  set(${result} ${usable} PARENT_SCOPE)
endfunction()
