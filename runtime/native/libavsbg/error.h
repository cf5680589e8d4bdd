// The exception inside the library: a status for programs and two sentences for people. None crosses the C interface.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "avsbg.h"

namespace avsbg {

class Error : public std::runtime_error {
 public:
  // `message` says what is wrong and names the offending value, `hint` what to do next.
  explicit Error(avsbg_status status, std::string message, std::string hint = "")
      : std::runtime_error(std::move(message)), status_(status), hint_(std::move(hint)) {}
  avsbg_status status() const { return status_; }
  const std::string& hint() const { return hint_; }

 private:
  avsbg_status status_;
  std::string hint_;
};

inline Error bundle_error(const std::string& message, const std::string& hint = "") {
  return Error(AVSBG_ERROR_BUNDLE, message, hint);
}
inline Error backend_error(const std::string& message, const std::string& hint = "") {
  return Error(AVSBG_ERROR_BACKEND, message, hint);
}
inline Error media_error(const std::string& message, const std::string& hint = "") {
  return Error(AVSBG_ERROR_MEDIA, message, hint);
}
inline Error argument_error(const std::string& message, const std::string& hint = "") {
  return Error(AVSBG_ERROR_ARGUMENT, message, hint);
}

}  // namespace avsbg
