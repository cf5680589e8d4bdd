// Engines of a bundle: the one that a user's words mean, and whether it may be loaded; the rules of
// runtime/backends/tensorrt/engine.py.
#pragma once

#include <functional>
#include <string>

#include "inference/session.h"

namespace avsbg {

// The name of the one engine that fits a graph's role, or the one that the options name. Of several that fit, those for
// the compute capability of the GPU that is used are preferred; it is asked for then alone, in tenths, 0 where there is
// no GPU. Throws an Error if there is none, or still several, with their names.
std::string choose_engine(const Bundle& bundle, const std::string& role, const SessionOptions& options,
                          const std::function<int()>& compute_capability);

// The sentence with the command that builds an engine again.
std::string rebuild_hint(const Bundle& bundle, const EngineRecord& record);

// An engine contains native code, which runs when it is deserialised: refuses content that is no engine of the record's
// backend, and, unless trusted, what this user did not build on this machine (which `avsbg build` notes). `rebuild` is
// the hint of the error.
void check_engine(const std::string& path, const std::string& content, const EngineRecord& record, bool trust,
                  const std::string& rebuild);

// Refuses a plugin library in `folder` that is not the one that the engine at `path` was built with.
void check_plugin(const std::string& path, const EngineRecord& record, const std::string& folder,
                  const std::string& rebuild);

}  // namespace avsbg
