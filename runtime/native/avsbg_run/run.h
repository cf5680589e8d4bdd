// Videos through the network: each in a directory of its own, as `avsbg run` writes it.
#pragma once

#include <avsbg.hpp>

#include "options.h"
#include "outputs.h"

namespace avsbg_run {

struct Item {
  std::string video, output;
};

// The videos among the sources, files and folders, in order, with the directories of their outputs.
std::vector<Item> find_videos(const std::vector<std::string>& sources, const std::string& output);

// Segments one video; returns its summary. A finished output of the same content, bundle and options is passed over,
// which `finished_before` then says.
Json segment_video(const avsbg::Model& model, const Options& options, const Item& item, bool& finished_before);


}  // namespace avsbg_run
