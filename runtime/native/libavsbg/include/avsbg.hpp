// libavsbg for C++17: the objects of avsbg.h with owners. Header-only, so that no C++ type and no exception crosses the
// library's boundary: a status that is not AVSBG_OK becomes an avsbg::Exception here, in the program's own code.
//
//     avsbg::Model model("avs-bg.bundle");
//     for (const avsbg::Mask& mask : model.run_clip(frames, sound)) show(mask->probability);
#ifndef AVSBG_HPP
#define AVSBG_HPP

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "avsbg.h"

namespace avsbg {

// A structure of avsbg.h with its size set.
template <typename Structure>
Structure init() {
  Structure structure{};
  structure.size = sizeof(Structure);
  return structure;
}

class Exception : public std::runtime_error {
 public:
  explicit Exception(avsbg_status status)
      : std::runtime_error(avsbg_last_error()), status_(status), hint_(avsbg_last_hint()) {}
  avsbg_status status() const noexcept { return status_; }
  const std::string& hint() const noexcept { return hint_; }

 private:
  avsbg_status status_;
  std::string hint_;
};

inline void check(avsbg_status status) {
  if (status != AVSBG_OK) throw Exception(status);
}

// A mask; copies share it.
class Mask {
 public:
  explicit Mask(avsbg_mask* taken) : mask_(taken), view_(init<avsbg_mask_view>()) { check(avsbg_mask_get(taken, &view_)); }
  Mask(const Mask& other) : mask_(avsbg_mask_retain(other.mask_)), view_(other.view_) {}
  Mask(Mask&& other) noexcept : mask_(std::exchange(other.mask_, nullptr)), view_(other.view_) {}
  Mask& operator=(Mask other) noexcept {
    std::swap(mask_, other.mask_);
    std::swap(view_, other.view_);
    return *this;
  }
  ~Mask() { avsbg_mask_release(mask_); }

  const avsbg_mask_view* operator->() const noexcept { return &view_; }
  const avsbg_mask_view& view() const noexcept { return view_; }

  // 255 where it sounds, else 0, [height][width].
  std::vector<std::uint8_t> decide(int width, int height, double threshold = 0.5) const {
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
    check(avsbg_mask_decide(mask_, threshold, width, height, pixels.data()));
    return pixels;
  }

  // The mask between this one and a later one.
  Mask interpolate(const Mask& later, float share) const {
    avsbg_mask* made = nullptr;
    check(avsbg_mask_interpolate(mask_, later.mask_, share, &made));
    return Mask(made);
  }

 private:
  avsbg_mask* mask_;
  avsbg_mask_view view_;
};

inline avsbg_frame frame(const std::uint8_t* pixels, int width, int height, std::size_t stride = 0) {
  avsbg_frame result = init<avsbg_frame>();
  result.pixels = pixels;
  result.width = width;
  result.height = height;
  result.stride = stride;
  return result;
}

class Model {
 public:
  explicit Model(const std::string& bundle, avsbg_model_options options = init<avsbg_model_options>()) {
    avsbg_model* opened = nullptr;
    check(avsbg_model_open(bundle.c_str(), &options, &opened));
    model_.reset(opened);
    info_ = init<avsbg_model_info>();
    check(avsbg_model_get_info(opened, &info_));
  }

  const avsbg_model* get() const noexcept { return model_.get(); }
  const avsbg_model_info& info() const noexcept { return info_; }
  std::string name() const { return avsbg_model_name(get()); }

  std::vector<Mask> run_clip(const std::vector<avsbg_frame>& frames, const std::vector<float>& sound) const {
    std::vector<avsbg_mask*> found(frames.size());
    check(avsbg_clip_run(get(), frames.data(), frames.size(), sound.data(), sound.size(), found.data()));
    return std::vector<Mask>(found.begin(), found.end());
  }

  // A frame in the network's size, [height][width][3].
  std::vector<std::uint8_t> resize(const avsbg_frame& frame) const {
    std::vector<std::uint8_t> pixels(3 * static_cast<std::size_t>(info_.height) * static_cast<std::size_t>(info_.width));
    check(avsbg_frame_resize(get(), &frame, pixels.data()));
    return pixels;
  }

 private:
  struct Close {
    void operator()(avsbg_model* model) const noexcept { avsbg_model_close(model); }
  };
  std::unique_ptr<avsbg_model, Close> model_;
  avsbg_model_info info_{};
};

class Stream {
 public:
  explicit Stream(const Model& model, avsbg_stream_options options = init<avsbg_stream_options>())
      : rate_(model.info().sample_rate) {
    avsbg_stream* opened = nullptr;
    check(avsbg_stream_open(model.get(), &options, &opened));
    stream_.reset(opened);
  }

  void push(const avsbg_frame& frame, std::optional<double> time = std::nullopt) {
    check(avsbg_stream_push(stream_.get(), &frame, time ? &*time : nullptr));
  }
  void push_sound(const float* samples, std::size_t count, std::optional<double> time = std::nullopt) {
    check(avsbg_stream_push_sound(stream_.get(), samples, count, rate_, time ? &*time : nullptr));
  }
  // The masks that are final, oldest first.
  std::vector<Mask> poll() {
    std::vector<Mask> masks;
    for (avsbg_mask* mask = nullptr;;) {
      check(avsbg_stream_poll(stream_.get(), &mask));
      if (mask == nullptr) return masks;
      masks.emplace_back(mask);
    }
  }
  void cut() { check(avsbg_stream_cut(stream_.get())); }
  void finish() { check(avsbg_stream_finish(stream_.get())); }
  avsbg_stream_counters counters() const {
    avsbg_stream_counters found = init<avsbg_stream_counters>();
    check(avsbg_stream_get_counters(stream_.get(), &found));
    return found;
  }

 private:
  struct Close {
    void operator()(avsbg_stream* stream) const noexcept { avsbg_stream_close(stream); }
  };
  std::unique_ptr<avsbg_stream, Close> stream_;
  std::int32_t rate_;
};

}  // namespace avsbg

#endif
