// Engines of a bundle: which one a user's words mean, and whether it may be loaded.
#pragma once

#include <string>

#include "inference/session.h"

namespace avsbg {

// The name of the one engine that fits a graph's role, or the one that the options name. Throws an Error if there is
// none, or several, with their names.
std::string choose_engine(const Bundle& bundle, const std::string& role, const SessionOptions& options);

// Deserialising an engine runs native code of whoever made it: refuses content that is no engine of the record's
// backend, and, unless trusted, what this user did not build on this machine (which `avsbg build` notes).
void check_engine(const std::string& path, const std::string& content, const EngineRecord& record, bool trust);

// Refuses a plugin library in `folder` that is not the one that the engine at `path` was built with.
void check_plugin(const std::string& path, const EngineRecord& record, const std::string& folder);

}  // namespace avsbg
