// The plugin's messages.
#pragma once

namespace avsbg::tensorrt {

// Takes the nvinfer1::ILoggerFinder that TensorRT hands over when it loads the library. Untyped, since its layout is
// that of the TensorRT which loads us, not of the one whose headers we were built with. The last one is kept.
void set_logger_finder(void* finder) noexcept;

// Reports a failure to the logger of the builder, engine or context that called the plugin; to stderr where there is
// none, so that no failure passes in silence. Call it in the thread in which TensorRT called the plugin.
// The message names the operator, its `node` and what was being done, `when`; `what` went wrong.
void report_failure(char const* plugin, char const* node, char const* when, char const* what) noexcept;

}  // namespace avsbg::tensorrt
