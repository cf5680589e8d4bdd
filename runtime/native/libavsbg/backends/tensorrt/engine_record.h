// Versions and GPU in the manifest's record of an engine, compared with those of this machine.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "backends/tensorrt/driver.h"

namespace avsbg_tensorrt {

bool is_version_compatible(const nlohmann::json& record);

// Refuses an engine of another version, unless it is version-compatible and not newer. `rebuild` says how to build it anew.
void check_version(const nlohmann::json& record, const std::string& file, std::int32_t version,
                   const std::string& rebuild);

// Refuses an engine for another GPU.
void check_device(const nlohmann::json& record, const std::string& file, const Device& device,
                  const std::string& rebuild);

}  // namespace avsbg_tensorrt
