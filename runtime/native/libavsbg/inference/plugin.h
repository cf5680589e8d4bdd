// Backends as libraries that are opened at run time.
#pragma once

#include <memory>
#include <string>

#include "inference/backend_api.h"

namespace avsbg {

struct Plugin {
  std::shared_ptr<void> library;  // is closed with its last user
  const avsbg_backend_table* table = nullptr;
};

// The folder of this library, libavsbg.so.1.
std::string library_folder();

// Opens libavsbg_backend_NAME.so in a folder; an Error of AVSBG_ERROR_BACKEND says what was looked for and where.
Plugin open_plugin(const std::string& name, const std::string& folder);

}  // namespace avsbg
