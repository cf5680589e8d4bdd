#include "switches.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace avsbg::tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

std::string names(Switches const& switches) {
  std::string text;
  for (auto const& known : switches) {
    text += (text.empty() ? "" : ", ") + std::string(known.name);
  }
  return text;
}

std::int32_t read_switch(PluginField const& field) {
  std::string const attribute = "attribute " + std::string(field.name);
  if (field.type != PluginFieldType::kINT32 && field.type != PluginFieldType::kINT64) {
    throw std::invalid_argument(attribute + " is not an integer (plugin field type " +
                                std::to_string(static_cast<int>(field.type)) + "); it must be 0 or 1");
  }
  if (field.data == nullptr || field.length != 1) {
    throw std::invalid_argument(attribute + " holds " + std::to_string(field.length) + " values; it must be 0 or 1");
  }
  std::int64_t const value = field.type == PluginFieldType::kINT32 ? *static_cast<std::int32_t const*>(field.data)
                                                                   : *static_cast<std::int64_t const*>(field.data);
  if (value != 0 && value != 1) {
    throw std::invalid_argument(attribute + " is " + std::to_string(value) + "; it must be 0 or 1");
  }
  return static_cast<std::int32_t>(value);
}

}  // namespace

void read_switches(Switches& switches, nvinfer1::PluginFieldCollection const* fields, nvinfer1::TensorRTPhase phase) {
  std::vector<bool> found(switches.size(), false);
  for (std::int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
    PluginField const& field = fields->fields[i];
    auto const known = std::find_if(switches.begin(), switches.end(), [&](Switch const& candidate) {
      return field.name != nullptr && std::strcmp(candidate.name, field.name) == 0;
    });
    if (known == switches.end()) {
      throw std::invalid_argument("unknown attribute " + std::string(field.name == nullptr ? "(no name)" : field.name) +
                                  "; the attributes are: " + names(switches));
    }
    known->value = read_switch(field);
    found[static_cast<std::size_t>(known - switches.begin())] = true;
  }
  if (phase != nvinfer1::TensorRTPhase::kRUNTIME) {
    return;
  }
  for (std::size_t i = 0; i < switches.size(); ++i) {
    if (!found[i]) {
      throw std::invalid_argument("the engine holds no attribute " + std::string(switches[i].name) +
                                  "; rebuild it with this version of the plugin");
    }
  }
}

}  // namespace avsbg::tensorrt
