// Manifests, archives of test vectors and options of whoever wrote the file: no input may do more than be refused.
// With clang's -fsanitize=fuzzer this is its target (AVSBG_LIBFUZZER); by itself it mutates the files of a folder:
// fuzz FOLDER SECONDS, whose files are named manifest*, npz* or options*.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "avsbg.h"
#include "bundle/manifest.h"
#include "bundle/npz.h"
#include "error.h"
#include "inference/session.h"

namespace {

std::map<std::string, avsbg::TensorRecord> wanted_arrays() {
  const auto record = [](const char* name, avsbg::DType dtype, std::vector<std::int64_t> shape) {
    return avsbg::TensorRecord{name, dtype, shape, std::vector<std::string>(shape.size())};
  };
  return {{"inputs.frames", record("frames", avsbg::DType::kUint8, {1, 5, 16, 24, 3})},
          {"outputs.logits", record("logits", avsbg::DType::kFloat32, {1, 5, 16, 24})}};
}

void try_manifest(const std::string& text) {
  const avsbg::Manifest manifest = avsbg::parse_manifest(text, "manifest.json");
  if (manifest.frames < 1 || manifest.graphs.empty()) std::abort();  // what is valid is complete
}

void try_npz(const std::string& content) {
  if (avsbg::read_npz(content, "vectors", wanted_arrays()).size() != 2) std::abort();
}

// The first bytes are the structure's size and numbers, the rest is a backend's name.
void try_options(const std::string& content) {
  avsbg_model_options options;
  AVSBG_INIT(options);
  std::int32_t numbers[5] = {};
  std::memcpy(numbers, content.data(), std::min(content.size(), sizeof numbers));
  const std::string backend = content.size() > sizeof numbers ? content.substr(sizeof numbers) : "";
  options.size = numbers[0] == 0 ? sizeof options : static_cast<std::size_t>(numbers[0]) % (sizeof options + 1);
  options.uses = numbers[1];
  options.threads = numbers[2];
  options.device = numbers[3];
  options.backend = backend.c_str();
  options.backend_folder = "/nowhere";
  avsbg_model* model = nullptr;
  if (avsbg_model_open("/nowhere", &options, &model) == AVSBG_OK || model != nullptr) std::abort();
  avsbg::BackendSpec::parse(backend);
}

bool accepts(int kind, const std::string& content) {
  try {
    kind == 0 ? try_manifest(content) : kind == 1 ? try_npz(content) : try_options(content);
    return true;
  } catch (const avsbg::Error&) {
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) accepts(data[0] % 3, std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  return 0;
}

#ifndef AVSBG_LIBFUZZER
int main(int count, char** arguments) {
  if (count != 3) return 2;
  std::vector<std::pair<int, std::string>> corpus;
  for (const auto& entry : std::filesystem::directory_iterator(arguments[1])) {
    std::ifstream file(entry.path(), std::ios::binary);
    const char first = entry.path().filename().string()[0];
    corpus.emplace_back(first == 'm' ? 0 : first == 'n' ? 1 : 2, std::string(std::istreambuf_iterator<char>(file), {}));
  }
  std::sort(corpus.begin(), corpus.end());  // a folder has no order, and a failure is to be had again
  std::mt19937 chance(16);
  long runs = 0, valid = 0, accepted = 0;
  for (const auto& [kind, content] : corpus) valid += accepts(kind, content);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(arguments[2]));
  while (std::chrono::steady_clock::now() < end) {
    auto [kind, content] = corpus[chance() % corpus.size()];
    for (unsigned edits = 1 + chance() % 4; edits > 0 && !content.empty(); --edits) {
      const std::size_t at = chance() % content.size(), length = 1 + chance() % 16;
      const std::string& other = corpus[chance() % corpus.size()].second;
      switch (chance() % 6) {
        case 0: content[at] = static_cast<char>(content[at] ^ 1 << chance() % 8); break;
        case 1: content[at] = static_cast<char>(chance()); break;
        case 2: content.erase(at, length); break;
        case 3: content.insert(at, content.substr(chance() % content.size(), length)); break;
        case 4: content.resize(at); break;
        default: if (!other.empty()) content.replace(at, length, other.substr(chance() % other.size(), length));
      }
    }
    accepted += accepts(kind, content);
    ++runs;
  }
  std::printf("%ld %ld %ld\n", runs, valid, accepted);
  return 0;
}
#endif
