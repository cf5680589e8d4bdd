#include "verify.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "error.h"

namespace avsbg {
namespace {

constexpr double kDecision = 0.5;
// The accuracy threshold where a graph of lower precision has no record with its own.
constexpr double kDefaultMinMiou = 0.99;

double value_at(const Array& array, std::size_t index) {
  switch (array.dtype) {
    case DType::kFloat32: return array.as<float>()[index];
    case DType::kFloat64: return array.as<double>()[index];
    case DType::kInt32: return array.as<std::int32_t>()[index];
    case DType::kInt64: return static_cast<double>(array.as<std::int64_t>()[index]);
    case DType::kUint8:
    case DType::kBool: return array.bytes[index];
    case DType::kFloat16: break;
  }
  throw backend_error("an output is of a type that is not compared: " + std::string(name_of(array.dtype)) + ".");
}

// Half of what PyTorch's logits [B, T, classes, H, W] put our class behind the first.
double class_difference(const Array& ours, const Array& logits, std::size_t index) {
  const auto classes = static_cast<std::size_t>(logits.shape[2]);
  const std::size_t pixels = static_cast<std::size_t>(logits.shape[3] * logits.shape[4]);
  const std::size_t base = index / pixels * classes * pixels + index % pixels;
  const double chosen = value_at(ours, index);
  if (!(chosen >= 0 && chosen < static_cast<double>(classes))) return std::numeric_limits<double>::quiet_NaN();
  float largest = -std::numeric_limits<float>::infinity();
  for (std::size_t k = 0; k < classes; ++k) largest = std::max(largest, logits.as<float>()[base + k * pixels]);
  return (largest - logits.as<float>()[base + static_cast<std::size_t>(chosen) * pixels]) / 2;
}

// The mean over the frames of the masks' IoU; 1 where both are empty.
double mean_iou(const Array& ours, const Array& theirs, bool are_classes) {
  const std::size_t pixels = static_cast<std::size_t>(theirs.shape[2] * theirs.shape[3]);
  const std::size_t frames = theirs.elements() / pixels;
  const auto number = [&](const Array& array, std::size_t i) {
    const double value = value_at(array, i);
    return are_classes ? value : static_cast<double>(value > kDecision);
  };
  double sum = 0;
  for (std::size_t frame = 0; frame < frames; ++frame) {
    std::size_t both = 0, either = 0;
    for (std::size_t i = frame * pixels; i < (frame + 1) * pixels; ++i) {
      const double one = number(ours, i), other = number(theirs, i);
      both += one == other && other != 0;
      either += one != 0 || other != 0;
    }
    sum += either == 0 ? 1.0 : static_cast<double>(both) / static_cast<double>(either);
  }
  return sum / static_cast<double>(frames);
}

double min_miou(const AccuracyRecord* accuracy) {
  if (accuracy == nullptr) return kDefaultMinMiou;
  if (!accuracy->vectors_miou) return accuracy->min_miou;
  // As much again may be lost as the threshold allows: another backend rounds differently.
  return std::max(0.0, std::min(accuracy->min_miou, *accuracy->vectors_miou - (1.0 - accuracy->min_miou)));
}

// Refuses what the comparison would index beyond its end: ranks and types come from the bundle, which is not trusted.
void check_comparable(const std::string& file, const std::string& name, const Arrays& reference) {
  const Array& array = reference.at("outputs." + name);
  bool fits = array.elements() > 0 && (array.shape.size() == 4 || (name != "probability" && name != "classes"));
  if (fits && name == "classes") {
    const auto logits = reference.find("outputs.logits");
    fits = logits != reference.end() && logits->second.dtype == DType::kFloat32 && logits->second.elements() > 0 &&
           logits->second.shape.size() == 5;
    if (fits) {
      std::vector<std::int64_t> shape = logits->second.shape;
      shape.erase(shape.begin() + 2);
      fits = shape == array.shape;
    }
  }
  if (!fits) {
    throw bundle_error(file + ": the test vectors hold " + name + " in a shape that is not compared.",
                       "Export the bundle again.");
  }
}

avsbg_comparison compare(const std::string& name, const Array& ours, const Arrays& reference, double tolerance) {
  const Array& theirs = reference.at("outputs." + name);
  avsbg_comparison result{};
  result.size = sizeof result;
  result.elements = static_cast<std::int64_t>(theirs.elements());
  result.flips = name == "probability" ? 0 : -1;
  result.miou = std::numeric_limits<double>::quiet_NaN();
  double largest = 0, magnitude = 0;
  const bool are_classes = name == "classes";
  for (std::size_t i = 0; i < theirs.elements(); ++i) {
    const double one = value_at(ours, i), other = value_at(theirs, i);
    const double difference = are_classes ? class_difference(ours, reference.at("outputs.logits"), i) : std::abs(one - other);
    if (!(difference <= largest)) largest = std::isnan(largest) ? largest : difference;  // NaN stays
    magnitude = std::max(magnitude, std::abs(other));
    if (result.flips >= 0) result.flips += (one > kDecision) != (other > kDecision);
  }
  if (name == "probability" || are_classes) result.miou = mean_iou(ours, theirs, are_classes);
  result.largest_absolute = largest;
  result.largest_relative = largest / std::max(magnitude, static_cast<double>(std::numeric_limits<float>::min()));
  result.passed = largest <= tolerance;
  return result;
}

}  // namespace

bool verify(const Model& model, double tolerance, avsbg_comparison_callback callback, void* user) {
  if (!model.clip) throw argument_error("the model was not opened for clips.", "Open it with AVSBG_CLIPS in `uses`.");
  const Manifest& manifest = model.manifest();
  if (manifest.vectors.empty()) throw bundle_error(model.bundle.path() + " holds no test vectors.", "Export the bundle again.");
  bool within = true, finite = true;
  double miou = 0;
  std::int64_t clips = 0;
  for (const VectorsRecord& record : manifest.vectors) {
    const Arrays reference = model.bundle.read_vectors(record);
    Tensors inputs;
    std::map<std::string, const Tensor*> given;
    for (const TensorRecord& tensor : record.inputs) {
      inputs[tensor.name] = Tensor(reference.at("inputs." + tensor.name));
      given[tensor.name] = &inputs[tensor.name];
    }
    std::vector<std::string> names;
    for (const TensorRecord& tensor : record.outputs) names.push_back(tensor.name);
    const Tensors outputs = model.clip->run(given, names);
    for (const std::string& name : names) {
      if (outputs.at(name).array().shape != reference.at("outputs." + name).shape) {
        throw bundle_error(record.file + " holds " + name + " in another shape than the graph returns.");
      }
      check_comparable(record.file, name, reference);
      avsbg_comparison result = compare(name, outputs.at(name).array(), reference, tolerance);
      result.vectors = record.file.c_str();
      result.output = name.c_str();
      result.clips = record.clips;
      within = within && result.passed;
      finite = finite && std::isfinite(result.largest_absolute);
      const bool decides = name == "classes" || (name == "probability" && !reference.count("outputs.classes"));
      if (decides) miou += result.miou * static_cast<double>(record.clips);
      if (decides) clips += record.clips;
      if (callback != nullptr) callback(&result, user);
    }
  }
  if (model.clip->precision() == "fp32") return within;
  return finite && clips > 0 && miou / static_cast<double>(clips) >= min_miou(model.clip->accuracy());
}

}  // namespace avsbg
