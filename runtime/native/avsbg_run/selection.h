// The backend of a run: the one that was named, or of `auto` the fastest that this machine can run.
#pragma once

#include <avsbg.hpp>
#include <string>

#include "options.h"
#include "results.h"

namespace avsbg_run {

// An open bundle, and what `auto` took for it.
struct Selected {
  avsbg::Model model;
  std::string backend;  // as a user names it
  bool stream;          // whether the network runs as a stream, not clip by clip
  Json reasons;         // of `auto`, as in Python's `summary.json`; null where the backend was named
};

// Opens the bundle, as a stream if --mode asks for it, or for a live source if it can be streamed. For `auto`, what can be
// told apart without a measurement is passed over with its reason; the rest is timed on a clip, unless one alone is left.
// Throws avsbg::Exception, or for `auto` a MediaError that names all reasons.
Selected open_bundle(const Options& options, bool live);

// The backend that `auto` took and those it passed over, as a sentence.
std::string describe_selection(const Json& reasons);

}  // namespace avsbg_run
