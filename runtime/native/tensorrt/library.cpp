// The library's two exported functions, by which TensorRT's registry (IPluginRegistry::loadLibrary, trtexec
// --dynamicPlugins, Polygraphy --plugins) finds the operators. Nothing here needs libnvinfer at link time.
#include <exception>
#include <utility>
#include <vector>

#include "operators.h"
#include "report.h"

namespace avsbg::tensorrt {
namespace {

template <class Operator>
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator() {
    for (auto const& known : attributes_) {
      fields_.emplace_back(known.name, nullptr, nvinfer1::PluginFieldType::kINT32, 1);
    }
    field_collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
  }

  char const* getPluginName() const noexcept override { return Operator::kName; }
  char const* getPluginVersion() const noexcept override { return "1"; }
  char const* getPluginNamespace() const noexcept override { return ""; }
  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &field_collection_; }

  nvinfer1::IPluginV3* createPlugin(char const* name, nvinfer1::PluginFieldCollection const* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override {
    try {
      Attributes attributes = attributes_;
      read_attributes(attributes, fields, phase);
      return new Operator(name == nullptr ? "" : name, std::move(attributes));
    } catch (std::exception const& error) {
      report_failure(Operator::kName, name == nullptr ? "" : name, "creation", error.what());
      return nullptr;
    }
  }

 private:
  Attributes const attributes_ = Operator::attributes();
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection field_collection_{};
};

}  // namespace
}  // namespace avsbg::tensorrt

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(
    std::int32_t& count) {
  using namespace avsbg::tensorrt;
  static Creator<MeanCorrelation> mean_correlation;
  static Creator<CorrelationVolume> correlation_volume;
  static Creator<MeanCorrelations> mean_correlations;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&mean_correlation, &correlation_volume, &mean_correlations};
  count = 3;
  return creators;
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  avsbg::tensorrt::set_logger_finder(finder);
}
