#include "report.h"

#include <atomic>
#include <cstdio>

namespace avsbg::tensorrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder = finder; }

void report_failure(char const* plugin, char const* node, char const* when, char const* what) noexcept {
  char message[1024];  // a longer one is cut: a failure to allocate must be reportable too
  std::snprintf(message, sizeof(message), "avsbg %s \"%s\", %s: %s", plugin, node, when, what);
  auto* const finder = logger_finder.load();
  auto* const logger = finder == nullptr ? nullptr : finder->findLogger();
  if (logger != nullptr) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, message);
  } else {
    std::fprintf(stderr, "%s\n", message);
  }
}

}  // namespace avsbg::tensorrt
