# Cross-compilation of C++ for aarch64 with Debian's or Ubuntu's package g++-aarch64-linux-gnu. Libraries beyond the
# compiler's own are those of .environments/aarch64/root, which scripts/aarch64-root.sh fills.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# Programs run in emulation, with the cross compiler's own C library.
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64;-L;/usr/aarch64-linux-gnu")
# Programs come from this machine; libraries and headers of this machine are of no use for the other.
cmake_path(SET root NORMALIZE ${CMAKE_CURRENT_LIST_DIR}/../../.environments/aarch64/root)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
if(EXISTS ${root})
  list(PREPEND CMAKE_FIND_ROOT_PATH ${root})
  # Debian's folder of headers that differ between processors.
  set(CMAKE_CXX_FLAGS_INIT "-isystem ${root}/usr/include/aarch64-linux-gnu")
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
