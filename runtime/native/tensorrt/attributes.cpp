#include "attributes.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace avsbg::tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

std::string names(Attributes const& attributes) {
  std::string text;
  for (auto const& known : attributes) {
    text += (text.empty() ? "" : ", ") + std::string(known.name);
  }
  return text;
}

std::int32_t read_attribute(PluginField const& field, Attribute const& known) {
  std::string const attribute = "attribute " + std::string(known.name);
  std::string const range = "; it must be " + std::to_string(known.least) +
                            (known.most - known.least > 1 ? " to " : " or ") + std::to_string(known.most);
  if (field.type != PluginFieldType::kINT32 && field.type != PluginFieldType::kINT64) {
    throw std::invalid_argument(attribute + " is not an integer (plugin field type " +
                                std::to_string(static_cast<int>(field.type)) + ")" + range);
  }
  if (field.data == nullptr || field.length != 1) {
    throw std::invalid_argument(attribute + " holds " + std::to_string(field.length) + " values" + range);
  }
  std::int64_t const value = field.type == PluginFieldType::kINT32 ? *static_cast<std::int32_t const*>(field.data)
                                                                   : *static_cast<std::int64_t const*>(field.data);
  if (value < known.least || value > known.most) {
    throw std::invalid_argument(attribute + " is " + std::to_string(value) + range);
  }
  return static_cast<std::int32_t>(value);
}

}  // namespace

void read_attributes(Attributes& attributes, nvinfer1::PluginFieldCollection const* fields,
                     nvinfer1::TensorRTPhase phase) {
  std::vector<bool> found(attributes.size(), false);
  for (std::int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
    PluginField const& field = fields->fields[i];
    auto const known = std::find_if(attributes.begin(), attributes.end(), [&](Attribute const& candidate) {
      return field.name != nullptr && std::strcmp(candidate.name, field.name) == 0;
    });
    if (known == attributes.end()) {
      throw std::invalid_argument("unknown attribute " + std::string(field.name == nullptr ? "(no name)" : field.name) +
                                  "; the attributes are: " + names(attributes));
    }
    known->value = read_attribute(field, *known);
    found[static_cast<std::size_t>(known - attributes.begin())] = true;
  }
  if (phase != nvinfer1::TensorRTPhase::kRUNTIME) {
    return;
  }
  for (std::size_t i = 0; i < attributes.size(); ++i) {
    if (!found[i]) {
      throw std::invalid_argument("the engine holds no attribute " + std::string(attributes[i].name) +
                                  "; rebuild it with this version of the plugin");
    }
  }
}

}  // namespace avsbg::tensorrt
