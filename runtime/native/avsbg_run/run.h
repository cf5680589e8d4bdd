// Sources through the network: each in a directory of its own, as `avsbg run` writes it.
#pragma once

#include <avsbg.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "live.h"
#include "options.h"
#include "outputs.h"
#include "selection.h"

namespace avsbg_run {

struct Item {
  std::string video, output;
};

// A signal asked for the end; its number. As an exit, the code is 128 and that.
struct Interrupted {
  int signal;
};

// The signal that came, or 0.
using Signal = std::function<int()>;

// The videos among the sources, files and folders, in order, with the directories of their outputs.
std::vector<Item> find_videos(const std::vector<std::string>& sources, const std::string& output);

// Segments one video; returns its summary. A finished output of the same content, bundle and options is passed over,
// which `finished_before` then says. Throws Interrupted where a signal came; nothing is kept of the video then.
Json segment_video(const Selected& selected, const Options& options, const Item& item, const Signal& signal,
                   bool& finished_before);

// Segments a live source until it ends, fails, or a signal comes; what had come is completed and kept. `failure` is what
// it failed with, if it did.
Json segment_live(const Selected& selected, const Options& options, const LiveSource& source,
                  const std::optional<LiveSource>& microphone, const Signal& signal, std::string& failure);

}  // namespace avsbg_run
