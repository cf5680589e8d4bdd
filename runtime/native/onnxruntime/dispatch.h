// The paths that were built, and those of them that this CPU can run.
#pragma once

#include <string>
#include <vector>

#include "path.h"

namespace avsbg::cpu {

// The paths that this CPU can run, best first; the fp32 ones before those that round to bf16. Never empty.
const std::vector<const Path*>& available_paths();

// Their names, separated by ", ".
std::string available_path_names();

// The path of that name, or the best fp32 path for "auto"; nullptr if this CPU or this build has none of that name.
const Path* find_path(const std::string& name);

}  // namespace avsbg::cpu
