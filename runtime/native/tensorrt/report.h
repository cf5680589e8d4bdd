// Where the plugin's messages go.
#pragma once

#include <NvInferRuntime.h>

namespace avsbg::tensorrt {

// Called by TensorRT when it loads the library (through the exported setLoggerFinder).
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// Reports a failure to the logger of the builder, engine or context that called the plugin; to stderr where there is
// none, so that no failure passes in silence. Call it in the thread in which TensorRT called the plugin.
// The message names the operator, its `node` and what was being done, `when`; `what` went wrong.
void report_failure(char const* plugin, char const* node, char const* when, char const* what) noexcept;

}  // namespace avsbg::tensorrt
