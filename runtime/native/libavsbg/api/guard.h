// The guard of every function of the C interface: exceptions become a status, and the thread's last error.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <string>

#include "error.h"

namespace avsbg {

// Notes the calling thread's error; "" where even that fails for want of memory.
avsbg_status remember(avsbg_status status, const char* message, const char* hint) noexcept;

template <typename Work>
avsbg_status guarded(Work work) noexcept {
  try {
    work();
    return AVSBG_OK;
  } catch (const Error& error) {
    return remember(error.status(), error.what(), error.hint().c_str());
  } catch (const std::bad_alloc&) {
    return remember(AVSBG_ERROR_MEMORY, "there is not enough memory.", "");
  } catch (const std::exception& error) {
    return remember(AVSBG_ERROR_INTERNAL, error.what(), "Please report it with the bundle's manifest.");
  } catch (...) {
    return remember(AVSBG_ERROR_INTERNAL, "an unknown exception.", "");
  }
}

inline void require(const void* pointer, const char* name) {
  if (pointer == nullptr) throw argument_error(std::string(name) + " is NULL.");
}

// A structure of options as this version has it: fields that the caller's lacks are 0. `least` is the size of the first
// version; a larger one than ours is taken if what we do not know is 0.
template <typename Structure>
Structure read_structure(const Structure* given, std::size_t least, const char* name) {
  Structure taken{};
  taken.size = sizeof(Structure);
  if (given == nullptr) return taken;
  const std::size_t size = given->size;
  if (size < least || size > 4096) {
    throw argument_error(std::string(name) + ".size is " + std::to_string(size) + ".", "Set up structures with AVSBG_INIT.");
  }
  std::memcpy(&taken, given, size < sizeof(Structure) ? size : sizeof(Structure));
  for (std::size_t i = sizeof(Structure); i < size; ++i) {
    if (reinterpret_cast<const unsigned char*>(given)[i] != 0) {
      throw argument_error(std::string(name) + " has an option of a later version of libavsbg.", "Update libavsbg.");
    }
  }
  taken.size = sizeof(Structure);
  return taken;
}

// Writes a result into the caller's structure, whose `size` says how much of it is there; fields of a later version
// than ours become 0.
template <typename Structure>
void write_structure(Structure value, std::size_t least, Structure* target, const char* name) {
  require(target, name);
  const std::size_t size = target->size;
  if (size < least || size > 4096) {
    throw argument_error(std::string(name) + ".size is " + std::to_string(size) + ".", "Set up structures with AVSBG_INIT.");
  }
  value.size = size;
  std::memcpy(target, &value, size < sizeof(Structure) ? size : sizeof(Structure));
  if (size > sizeof(Structure)) {
    std::memset(reinterpret_cast<unsigned char*>(target) + sizeof(Structure), 0, size - sizeof(Structure));
  }
}

}  // namespace avsbg
