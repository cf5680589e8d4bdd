# Cross-compilation for Jetson on an x86-64 machine, with Debian's or Ubuntu's package g++-aarch64-linux-gnu and the
# x86-64 CUDA toolkit. The toolkit has no CUDA runtime for aarch64 hosts: the environment variable AVSBG_AARCH64_CUDART
# names the folder of its libcudart_static.a, from the aarch64 wheel of nvidia-cuda-runtime (a variable of CMake would
# not reach its compiler checks). scripts/cross-build-jetson.sh does all of it.
if(NOT EXISTS "$ENV{AVSBG_AARCH64_CUDART}/libcudart_static.a")
  message(FATAL_ERROR "The environment variable AVSBG_AARCH64_CUDART=$ENV{AVSBG_AARCH64_CUDART} does not name a folder "
    "with libcudart_static.a; scripts/cross-build-jetson.sh fetches it and sets the variable")
endif()
include(${CMAKE_CURRENT_LIST_DIR}/aarch64.cmake)
# Whatever else was fetched for this processor: what needs the device's own libraries is built on the device.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_CUDA_HOST_COMPILER aarch64-linux-gnu-g++)
# nvcc would take headers and libraries from the toolkit's folder for aarch64, which an x86-64 toolkit lacks. The headers
# are the same; of the libraries, the linker skips the toolkit's and takes the other folder's.
set(CMAKE_CUDA_FLAGS "--target-directory x86_64-linux -L$ENV{AVSBG_AARCH64_CUDART}" CACHE STRING "nvcc's flags")
set(CMAKE_MODULE_LINKER_FLAGS_INIT "-L$ENV{AVSBG_AARCH64_CUDART}")
