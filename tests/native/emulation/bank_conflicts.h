// Shared memory has 32 banks of 4 bytes. A warp's access is served in phases of 128 bytes; within a phase, different
// words of one bank cost one more transaction each.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "emulation.h"

namespace emulation {

struct SharedAccess {
  const char* kind;
  std::uint32_t offset;
  std::uint32_t size;
};

// Adds the accesses of one warp, the i-th of each lane being one instruction, to `counts`.
void count_conflicts(const std::vector<SharedAccess>* const (&lanes)[32], std::map<std::string, AccessCount>& counts);

}  // namespace emulation
