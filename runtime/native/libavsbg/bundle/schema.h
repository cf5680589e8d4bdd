// Validation by the manifest's committed JSON Schema, which is compiled in: the two runtimes accept the same files.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace avsbg {

using Json = nlohmann::json;

// The schema, runtime/bundle/manifest.schema.json.
const Json& manifest_schema();

// The problems of a document, each as "place: what is wrong"; none where it is valid. Numbers are taken as strictly as
// Python's runtime does: 1.0 is no integer. Throws std::logic_error for a keyword that is not known here.
std::vector<std::string> find_problems(const Json& document, const Json& schema = manifest_schema());

}  // namespace avsbg
