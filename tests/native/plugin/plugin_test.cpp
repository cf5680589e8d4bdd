// Calls the plugin library as TensorRT does, without TensorRT and without a GPU: creators in both phases, what an engine
// stores of a node and reads again, formats, workspace, and that every failure reaches the logger in words.
//
// Usage: plugin_test LIBRARY
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "check.h"

// The logger and its finder as TensorRT 10 and TensorRT 11 declare them; the headers at hand have only one form.
// Outside any anonymous namespace, since what lies behind these interfaces is compiled elsewhere.
namespace abi10 {
struct Logger {
  virtual void log(nvinfer1::ILogger::Severity severity, char const* message) noexcept = 0;
  virtual ~Logger() = default;
};
struct LoggerFinder {
  virtual Logger* findLogger() = 0;
  virtual ~LoggerFinder() = default;
};
}  // namespace abi10

namespace abi11 {
struct Logger : nvinfer1::IVersionedInterface {
  nvinfer1::InterfaceInfo getInterfaceInfo() const noexcept override { return {"Logger", 1, 0}; }
  virtual void log(nvinfer1::ILogger::Severity severity, char const* message) noexcept = 0;
};
struct LoggerFinder : nvinfer1::IVersionedInterface {
  nvinfer1::InterfaceInfo getInterfaceInfo() const noexcept override { return {"LoggerFinder", 1, 0}; }
  virtual Logger* findLogger() = 0;
};
}  // namespace abi11

namespace {

using namespace nvinfer1;

std::vector<std::string> messages;

template <class Interfaces_Logger>
struct RecordingLogger final : Interfaces_Logger {
  void log(ILogger::Severity severity, char const* message) noexcept override {
    CHECK(severity == ILogger::Severity::kERROR);
    messages.emplace_back(message);
  }
};

template <class Interfaces_LoggerFinder, class Interfaces_Logger>
struct Finder final : Interfaces_LoggerFinder {
  RecordingLogger<Interfaces_Logger> logger;
  Interfaces_Logger* findLogger() override { return &logger; }
};

// Whether exactly one message has come since the last call, and it contains all of `parts`.
bool reported(std::initializer_list<char const*> parts) {
  std::vector<std::string> const arrived = std::exchange(messages, {});
  bool complete = arrived.size() == 1;
  for (char const* const part : parts) {
    complete = complete && arrived.front().find(part) != std::string::npos;
  }
  if (!complete) {
    std::printf("messages: %zu\n", arrived.size());
    for (auto const& message : arrived) {
      std::printf("  %s\n", message.c_str());
    }
  }
  return complete;
}

using Plugin = std::unique_ptr<IPluginV3>;
using Fields = std::vector<std::pair<char const*, std::int32_t>>;

Plugin create(IPluginCreatorV3One& creator, Fields const& values, TensorRTPhase phase) {
  std::vector<PluginField> fields;
  for (auto const& value : values) {
    fields.emplace_back(value.first, &value.second, PluginFieldType::kINT32, 1);
  }
  PluginFieldCollection const collection{static_cast<std::int32_t>(fields.size()), fields.data()};
  return Plugin{creator.createPlugin("node", &collection, phase)};
}

template <class Capability>
Capability& capability(Plugin const& plugin, PluginCapabilityType type) {
  return *static_cast<Capability*>(plugin->getCapabilityInterface(type));
}

IPluginV3OneCore& core(Plugin const& plugin) {
  return capability<IPluginV3OneCore>(plugin, PluginCapabilityType::kCORE);
}
IPluginV3OneBuild& build(Plugin const& plugin) {
  return capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}
IPluginV3OneRuntime& runtime(Plugin const& plugin) {
  return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}

std::vector<std::pair<std::string, std::int32_t>> stored(Plugin const& plugin) {
  std::vector<std::pair<std::string, std::int32_t>> values;
  PluginFieldCollection const* const fields = runtime(plugin).getFieldsToSerialize();
  for (std::int32_t i = 0; i < fields->nbFields; ++i) {
    PluginField const& field = fields->fields[i];
    CHECK(field.type == PluginFieldType::kINT32 && field.length == 1);
    values.emplace_back(field.name, *static_cast<std::int32_t const*>(field.data));
  }
  return values;
}

PluginTensorDesc tensor(std::vector<std::int64_t> const& shape, DataType type) {
  PluginTensorDesc description{};
  description.dims.nbDims = static_cast<std::int32_t>(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) {
    description.dims.d[i] = shape[i];
  }
  description.type = type;
  description.format = TensorFormat::kLINEAR;
  return description;
}

DynamicPluginTensorDesc range(PluginTensorDesc const& smallest, PluginTensorDesc const& largest) {
  DynamicPluginTensorDesc description{};
  description.desc = largest;
  description.min = smallest.dims;
  description.opt = largest.dims;
  description.max = largest.dims;
  return description;
}

DynamicPluginTensorDesc fixed(PluginTensorDesc const& shape) { return range(shape, shape); }

void check_names(IPluginCreatorV3One& creator, char const* name, std::vector<std::string> const& fields) {
  CHECK(std::strcmp(creator.getPluginName(), name) == 0);
  CHECK(std::strcmp(creator.getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(creator.getPluginNamespace(), "") == 0);
  PluginFieldCollection const* const known = creator.getFieldNames();
  CHECK(known->nbFields == static_cast<std::int32_t>(fields.size()));
  for (std::size_t i = 0; i < fields.size(); ++i) {
    CHECK(fields[i] == known->fields[i].name);
  }
  Plugin const plugin = create(creator, {}, TensorRTPhase::kBUILD);
  CHECK(std::strcmp(core(plugin).getPluginName(), name) == 0);
  CHECK(std::strcmp(core(plugin).getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(core(plugin).getPluginNamespace(), "") == 0);
}

// The run-time phase reads back what the build phase stores, through clones and contexts, for every value.
void check_round_trip(IPluginCreatorV3One& creator, std::vector<std::string> const& names) {
  for (int bits = 0; bits < 1 << names.size(); ++bits) {
    Fields values;
    std::vector<std::pair<std::string, std::int32_t>> expected;
    for (std::size_t i = 0; i < names.size(); ++i) {
      values.emplace_back(names[i].c_str(), bits >> i & 1);
      expected.emplace_back(names[i], bits >> i & 1);
    }
    Plugin built = create(creator, values, TensorRTPhase::kBUILD);
    CHECK(stored(built) == expected);
    PluginFieldCollection const* const engine = runtime(built).getFieldsToSerialize();
    Plugin loaded{creator.createPlugin("node", engine, TensorRTPhase::kRUNTIME)};
    CHECK(loaded != nullptr);
    built.reset();  // what was loaded stands by itself
    Plugin const copy{loaded->clone()};
    Plugin const attached{runtime(copy).attachToContext(nullptr)};
    loaded.reset();
    CHECK(stored(copy) == expected);
    CHECK(stored(attached) == expected);
  }
}

void check_refused_fields(IPluginCreatorV3One& creator, char const* name) {
  CHECK(create(creator, {{name, 2}}, TensorRTPhase::kBUILD) == nullptr);
  CHECK(reported({"node", name, "is 2", "0 or 1"}));
  CHECK(create(creator, {{"no_such", 1}}, TensorRTPhase::kBUILD) == nullptr);
  CHECK(reported({"unknown attribute no_such", name}));
  CHECK(create(creator, {}, TensorRTPhase::kRUNTIME) == nullptr);
  CHECK(reported({"the engine holds no attribute", "rebuild"}));
  float const wrong = 1.0F;
  PluginField const field{name, &wrong, PluginFieldType::kFLOAT32, 1};
  PluginFieldCollection const fields{1, &field};
  CHECK(creator.createPlugin("node", &fields, TensorRTPhase::kBUILD) == nullptr);
  CHECK(reported({name, "not an integer"}));
}

// The node of all stages: two stages of clips of three frames, unless said otherwise.
Plugin grouped(IPluginCreatorV3One& creator, Fields const& changed = {}) {
  Fields values{{"stages", 2}, {"frames", 3}};
  for (auto const& [name, value] : changed) {
    (std::strcmp(name, "stages") == 0 ? values[0] : std::strcmp(name, "frames") == 0 ? values[1]
                                                                                    : values.emplace_back()) = {name, value};
  }
  return create(creator, values, TensorRTPhase::kBUILD);
}

void check_grouped(IPluginCreatorV3One& creator) {
  check_names(creator, "MeanCorrelations", {"stages", "frames", "mean_b", "tf32"});
  CHECK(grouped(creator, {{"stages", 5}}) == nullptr);
  CHECK(reported({"attribute stages is 5; it must be 1 to 4"}));
  Plugin const plugin = grouped(creator);
  CHECK((stored(plugin) == std::vector<std::pair<std::string, std::int32_t>>{
                               {"stages", 2}, {"frames", 3}, {"mean_b", 1}, {"tf32", 0}}));
  CHECK(build(plugin).getNbOutputs() == 4 && build(grouped(creator, {{"mean_b", 0}})).getNbOutputs() == 2);

  // Maps channels last, in the format that TensorRT documents for their type; means in rows.
  for (DataType const type : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    for (TensorFormat const format : {TensorFormat::kLINEAR, TensorFormat::kHWC, TensorFormat::kHWC8}) {
      std::vector<DynamicPluginTensorDesc> tensors(6, fixed(tensor({6, 128, 4, 4}, type)));
      tensors[0].desc.format = tensors[1].desc.format = format;
      tensors[2].desc.type = DataType::kFLOAT;
      bool const documented = format == (type == DataType::kFLOAT ? TensorFormat::kHWC : TensorFormat::kHWC8);
      CHECK(build(plugin).supportsFormatCombination(1, tensors.data(), 2, 4) == documented);
      CHECK(build(plugin).supportsFormatCombination(2, tensors.data(), 2, 4));
    }
  }
  auto const configure = [&](Plugin const& node, std::vector<std::vector<std::int64_t>> const& shapes) {
    std::vector<DynamicPluginTensorDesc> inputs;
    for (auto const& shape : shapes) inputs.push_back(fixed(tensor(shape, DataType::kHALF)));
    return build(node).configurePlugin(inputs.data(), static_cast<std::int32_t>(inputs.size()), nullptr,
                                       build(node).getNbOutputs());
  };
  CHECK(configure(plugin, {{6, 128, 8, 8}, {6, 128, 4, 4}}) == 0);
  CHECK(configure(plugin, {{7, 128, 8, 8}, {7, 128, 4, 4}}) != 0);
  CHECK(reported({"of stage 0", "[7, 128, 8, 8]", "no whole number of clips of 3 frames"}));
  CHECK(configure(plugin, {{6, 128, 8, 8}, {6, 128, 16}}) != 0);
  CHECK(reported({"of stage 1 has rank 3", "[maps, channels, height, width]"}));
  CHECK(configure(plugin, {{6, 128, 8, 8}}) != 0);
  CHECK(reported({"2 inputs, the maps of each stage, and has 4 outputs", "1 inputs"}));
  CHECK(configure(grouped(creator, {{"frames", 1}}), {{6, 128, 8, 8}, {6, 128, 4, 4}}) != 0);
  CHECK(reported({"attribute frames is 1"}));
  Plugin const partners = grouped(creator, {{"stages", 1}, {"frames", 0}});
  CHECK(configure(partners, {{6, 128, 8, 8}, {6, 128, 4, 4}}) == 0);
  CHECK(configure(partners, {{6, 128, 8, 8}, {6, 64, 4, 4}}) != 0);
  CHECK(reported({"a of stage 0", "they must agree in maps and channels"}));

  // correlation.h: 4 N Q ceil(P / 128) bytes for mean_b of each stage, and at most 1 MiB for all mean_a.
  DynamicPluginTensorDesc const inputs[] = {fixed(tensor({15, 128, 56, 56}, DataType::kHALF)),
                                            fixed(tensor({15, 128, 28, 28}, DataType::kHALF))};
  std::size_t const mean_b = 4 * 10 * (std::size_t{3136} * 25 + std::size_t{784} * 7);
  std::size_t const bytes = build(plugin).getWorkspaceSize(inputs, 2, nullptr, 4);
  CHECK(bytes >= mean_b && bytes <= mean_b + 1024 * 1024);
}

void check_types_and_formats(IPluginCreatorV3One& creator) {
  Plugin const plugin = create(creator, {}, TensorRTPhase::kBUILD);
  std::int32_t const outputs = build(plugin).getNbOutputs();
  for (DataType const type : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT8, DataType::kINT32}) {
    bool const supported = type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
    DataType const inputs[] = {type, type};
    DataType results[] = {DataType::kINT32, DataType::kINT32};
    CHECK((build(plugin).getOutputDataTypes(results, outputs, inputs, 2) == 0) == supported);
    CHECK(supported ? results[0] == DataType::kFLOAT : reported({"output types", "int", "float16"}));

    std::vector<DynamicPluginTensorDesc> tensors(2 + outputs, fixed(tensor({1, 4, 8}, DataType::kFLOAT)));
    tensors[0].desc.type = type;
    tensors[1].desc.type = type;
    for (std::int32_t position = 0; position < 2; ++position) {
      CHECK(build(plugin).supportsFormatCombination(position, tensors.data(), 2, outputs) == supported);
    }
    CHECK(build(plugin).supportsFormatCombination(2, tensors.data(), 2, outputs));
    tensors[2].desc.type = DataType::kHALF;
    CHECK(!build(plugin).supportsFormatCombination(2, tensors.data(), 2, outputs));
    tensors[0].desc.format = TensorFormat::kCHW32;
    CHECK(!build(plugin).supportsFormatCombination(0, tensors.data(), 2, outputs));
  }
  CHECK(build(plugin).getOutputDataTypes(nullptr, outputs, nullptr, 3) != 0);
  CHECK(reported({"2 inputs", "3 inputs"}));
}

void check_shapes(IPluginCreatorV3One& creator) {
  Plugin const plugin = create(creator, {}, TensorRTPhase::kBUILD);
  std::int32_t const outputs = build(plugin).getNbOutputs();
  auto const configure = [&](PluginTensorDesc const& a, PluginTensorDesc const& b) {
    DynamicPluginTensorDesc const inputs[] = {fixed(a), fixed(b)};
    return build(plugin).configurePlugin(inputs, 2, nullptr, outputs);
  };
  auto const half = [](std::vector<std::int64_t> const& shape) { return tensor(shape, DataType::kHALF); };
  CHECK(configure(half({4, 49, 64}), half({4, 1, 64})) == 0);
  CHECK(configure(half({4, 49, 12}), half({4, 49, 12})) != 0);
  CHECK(reported({"configuration", "C = 12"}));
  CHECK(configure(half({4, 49, 64}), half({3, 49, 64})) != 0);
  CHECK(reported({"[4, 49, 64]", "[3, 49, 64]"}));
  CHECK(configure(half({4, 49}), half({4, 49})) != 0);
  CHECK(reported({"rank 2", "rank 3"}));
}

void check_workspace(IPluginCreatorV3One& means, IPluginCreatorV3One& volume) {
  DynamicPluginTensorDesc const inputs[] = {
      range(tensor({1, 3136, 128}, DataType::kHALF), tensor({16, 3136, 128}, DataType::kHALF)),
      range(tensor({1, 3136, 128}, DataType::kHALF), tensor({16, 3136, 128}, DataType::kHALF))};
  auto const bytes = [&](IPluginCreatorV3One& creator, Fields const& fields) {
    return build(create(creator, fields, TensorRTPhase::kBUILD)).getWorkspaceSize(inputs, 2, nullptr, 0);
  };
  // correlation.h: 4 N Q ceil(P / 128) bytes for mean_b, of the largest shapes, and at most 1 MiB for mean_a.
  std::size_t const mean_b = 4 * 16 * std::size_t{3136} * 25;
  CHECK(bytes(means, {}) >= mean_b && bytes(means, {}) <= mean_b + 1024 * 1024);
  CHECK(bytes(means, {{"mean_b", 0}}) <= 1024 * 1024);
  CHECK(bytes(volume, {}) == 0);
}

// On any machine, with or without a GPU, these fail before anything is launched.
void check_execution_failures(IPluginCreatorV3One& creator) {
  Plugin const plugin = create(creator, {}, TensorRTPhase::kBUILD);
  std::int32_t const outputs = build(plugin).getNbOutputs();
  PluginTensorDesc const declined[] = {tensor({1, 4, 12}, DataType::kFLOAT), tensor({1, 4, 12}, DataType::kFLOAT)};
  void const* const inputs[] = {nullptr, nullptr};
  void* const results[] = {nullptr, nullptr};
  CHECK(runtime(plugin).enqueue(declined, nullptr, inputs, results, nullptr, nullptr) != 0);
  CHECK(reported({"node", "execution"}));
  PluginTensorDesc const mismatched[] = {tensor({1, 4, 8}, DataType::kFLOAT), tensor({1, 4, 16}, DataType::kFLOAT)};
  CHECK(runtime(plugin).onShapeChange(mismatched, 2, nullptr, outputs) != 0);
  CHECK(reported({"new shapes", "[1, 4, 8]", "[1, 4, 16]"}));
  PluginTensorDesc const typed[] = {tensor({1, 4, 8}, DataType::kINT8), tensor({1, 4, 8}, DataType::kINT8)};
  CHECK(runtime(plugin).enqueue(typed, nullptr, inputs, results, nullptr, nullptr) != 0);
  CHECK(reported({"execution", "int8"}));
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 2) {
    std::printf("usage: plugin_test LIBRARY\n");
    return 2;
  }
  void* const library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::printf("%s\n", dlerror());
    return 2;
  }
  auto const get_creators =
      reinterpret_cast<IPluginCreatorInterface* const* (*)(std::int32_t&)>(dlsym(library, "getCreators"));
  auto const set_logger_finder = reinterpret_cast<void (*)(void*)>(dlsym(library, "setLoggerFinder"));
  CHECK(get_creators != nullptr && set_logger_finder != nullptr);
  if (failures != 0) {
    return 1;
  }
  std::int32_t count = 0;
  IPluginCreatorInterface* const* const creators = get_creators(count);
  CHECK(count == 3);
  auto& means = *static_cast<IPluginCreatorV3One*>(creators[0]);
  auto& volume = *static_cast<IPluginCreatorV3One*>(creators[1]);
  auto& all_stages = *static_cast<IPluginCreatorV3One*>(creators[2]);

  Finder<abi10::LoggerFinder, abi10::Logger> finder10;
  Finder<abi11::LoggerFinder, abi11::Logger> finder11;
  // As a libnvinfer has it that was compiled with -fno-rtti: no type stands before the virtual functions.
  constexpr bool kVersioned = std::is_base_of_v<IVersionedInterface, ILoggerFinder>;
  std::conditional_t<kVersioned, decltype(finder11), decltype(finder10)> untyped_finder;
  void**& functions = *reinterpret_cast<void***>(&untyped_finder);
  // findLogger and two destructors; with getInterfaceInfo and getAPILanguage before them where it is versioned.
  std::vector<void*> table{functions[-2], nullptr};
  table.insert(table.end(), functions, functions + (kVersioned ? 5 : 3));
  functions = table.data() + 2;
  for (void* const finder : {static_cast<void*>(&finder10), static_cast<void*>(&finder11),
                             static_cast<void*>(&untyped_finder)}) {
    set_logger_finder(finder);
    check_names(means, "MeanCorrelation", {"mean_b", "tf32"});
    check_names(volume, "CorrelationVolume", {"relu", "tf32"});
    check_round_trip(means, {"mean_b", "tf32"});
    check_round_trip(volume, {"relu", "tf32"});
    check_refused_fields(means, "mean_b");
    check_refused_fields(volume, "relu");
    check_workspace(means, volume);
    check_grouped(all_stages);
    for (IPluginCreatorV3One* const creator : {&means, &volume}) {
      check_types_and_formats(*creator);
      check_shapes(*creator);
      check_execution_failures(*creator);
    }
    CHECK(messages.empty());
  }
  set_logger_finder(nullptr);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
