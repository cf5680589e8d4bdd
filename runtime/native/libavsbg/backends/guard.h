// The boundary of a backend: no exception crosses it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>

#include "inference/backend_api.h"

// Runs `work`; returns 0, or 1 with what it threw in `error`.
template <typename Work>
std::int32_t guarded(avsbg_text* error, Work work) noexcept {
  try {
    work();
    return 0;
  } catch (const std::exception& caught) {
    std::snprintf(error->data, sizeof error->data, "%s", caught.what());
  } catch (...) {
    std::snprintf(error->data, sizeof error->data, "an unknown exception");
  }
  return 1;
}
