#include "backends/tensorrt/engine_record.h"

#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "backends/tensorrt/library.h"

namespace avsbg_tensorrt {
namespace {

// Major, minor and patch of a text such as 10.13.3.9, as NV_TENSORRT_VERSION counts; -1 for another text.
std::int32_t parse_version(const std::string& text) {
  int major = 0, minor = 0, patch = 0;
  if (std::sscanf(text.c_str(), "%d.%d.%d", &major, &minor, &patch) < 2) return -1;
  return major * 10000 + minor * 100 + patch;
}

std::string tenths(int number) { return std::to_string(number / 10) + "." + std::to_string(number % 10); }

std::string shown(const nlohmann::json& value) {
  if (value == "") return "none";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

bool is_version_compatible(const nlohmann::json& record) {
  return record["options"].value("VERSION_COMPATIBLE", nlohmann::json()) == true;
}

void check_version(const nlohmann::json& record, const std::string& file, std::int32_t version,
                   const std::string& rebuild) {
  const std::string built = record["versions"].value(kBackend, "unknown");
  const std::int32_t wanted = parse_version(built);
  if (wanted == version) return;
  const std::string message =
      file + " was built by " + kBackend + " " + built + "; installed is " + version_text(version) + ". ";
  if (!is_version_compatible(record) || wanted < 0) throw std::runtime_error(message + rebuild);
  if (version < wanted) {
    throw std::runtime_error(message + "A version-compatible engine needs the same version or a later one. " + rebuild);
  }
}

void check_device(const nlohmann::json& record, const std::string& file, const Device& device,
                  const std::string& rebuild) {
  const nlohmann::json& theirs = record["device"];
  const int capability = device.compute_capability();
  std::string built_for;
  bool is_listed = false;
  for (const int one : theirs["compute_capabilities"]) {
    built_for += (built_for.empty() ? "" : ", ") + tenths(one);
    is_listed = is_listed || one == capability;
  }
  if (!is_listed) {
    throw std::runtime_error(file + " was built for compute capability " + built_for + "; this GPU, " + device.name() +
                             ", has " + tenths(capability) + ". " + rebuild);
  }
  if (std::strcmp(kBackend, "tensorrt") != 0) return;
  // All GPUs of a Jetson generation have one name and one compute capability, from 4 to 16 multiprocessors.
  struct Fact {
    const char *name, *field;
    nlohmann::json here;
  };
  const Fact facts[] = {{"name", "name", device.name()},
                        {"multiprocessors", "multiprocessors", device.multiprocessors()},
                        {"GiB of memory", "memory_gib", device.memory_gib()},
                        {"module", "module", module_name()}};
  for (const Fact& fact : facts) {
    const nlohmann::json wanted = theirs.value(fact.field, nlohmann::json());
    if (!wanted.is_null() && wanted != fact.here) {
      throw std::runtime_error(file + " was built on another GPU: " + fact.name + " " + shown(wanted) + ", here " +
                               shown(fact.here) + ". " + rebuild);
    }
  }
}

}  // namespace avsbg_tensorrt
