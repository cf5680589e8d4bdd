#include "bank_conflicts.h"

#include <algorithm>
#include <cstring>

namespace emulation {

void count_conflicts(const std::vector<SharedAccess>* const (&lanes)[32], std::map<std::string, AccessCount>& counts) {
  for (std::size_t i = 0; i < lanes[0]->size(); ++i) {
    const SharedAccess& first = (*lanes[0])[i];
    AccessCount& count = counts[first.kind];
    ++count.accesses;
    const int lanes_per_phase = 128 / static_cast<int>(std::max<std::uint32_t>(first.size, 4));
    for (int phase = 0; phase < 32; phase += lanes_per_phase) {
      std::vector<std::uint32_t> words[32];
      for (int lane = phase; lane < phase + lanes_per_phase; ++lane) {
        if (i >= lanes[lane]->size()) fail("the lanes of a warp differ in their accesses to shared memory");
        const SharedAccess& access = (*lanes[lane])[i];
        if (access.size != first.size || std::strcmp(access.kind, first.kind) != 0)
          fail("the lanes of a warp differ in their accesses to shared memory");
        for (std::uint32_t byte = 0; byte < access.size; byte += 4) {
          const std::uint32_t word = (access.offset + byte) / 4;
          auto& bank = words[word % 32];
          if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
        }
      }
      std::size_t transactions = 1;
      for (const auto& bank : words) transactions = std::max(transactions, bank.size());
      count.conflicts += static_cast<std::int64_t>(transactions) - 1;
    }
  }
}

}  // namespace emulation
