// Threads that share models, each with streams of its own, through the C interface.
// exercise CLIP_BUNDLE STREAM_BUNDLE BACKEND_FOLDER RUNTIME_LIBRARY [BACKEND [untrusted]]
#include <atomic>
#include <avsbg.hpp>
#include <cstdio>
#include <cstring>
#include <thread>

namespace {

constexpr int kThreads = 4;
std::atomic<int> masks{0}, device_masks{0};

// Counts a mask. The GPU is a fake, whose memory can be read.
void count(const avsbg::Mask& mask) {
  ++masks;
  if (mask->device_probability == nullptr) return;
  ++device_masks;
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(mask->height * mask->width);
  if (std::memcmp(mask->device_probability, mask->probability, bytes) != 0) std::abort();
}

std::vector<avsbg::Mask> segment(const avsbg::Model& model) {
  std::vector<std::uint8_t> pixels(3 * 40 * 30);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 7);
  const std::vector<avsbg_frame> frames(3, avsbg::frame(pixels.data(), 40, 30));
  return model.run_clip(frames, std::vector<float>(3 * static_cast<std::size_t>(model.info().sample_rate), 0.5F));
}

std::vector<float> run_clip(const avsbg::Model& model) {
  std::vector<float> found;
  std::vector<avsbg::Mask> kept;
  for (const avsbg::Mask& mask : segment(model)) {
    kept.push_back(mask);
    count(mask);
    found.insert(found.end(), mask->probability, mask->probability + mask->height * mask->width);
    found.push_back(mask.decide(17, 5)[3]);
  }
  return found;
}

std::vector<float> run_stream(const avsbg::Model& model, int frames) {
  avsbg::Stream stream(model);
  std::vector<float> found;
  const std::vector<float> sound(static_cast<std::size_t>(model.info().sample_rate / 3), 0.25F);
  const auto collect = [&] {
    for (const avsbg::Mask& mask : stream.poll()) {
      count(mask);
      found.push_back(mask->probability[0] + static_cast<float>(mask->index));
    }
  };
  for (int i = 0; i < frames; ++i) {
    const std::vector<std::uint8_t> pixels(3 * 2 * 3, static_cast<std::uint8_t>(i));
    for (int part = 0; part < 3; ++part) stream.push_sound(sound.data(), sound.size());
    stream.push(avsbg::frame(pixels.data(), 3, 2));
    collect();
    if (i % 5 == 4) stream.cut();
  }
  try {
    stream.push(avsbg::frame(nullptr, 3, 2));
  } catch (const avsbg::Exception& error) {
    found.push_back(static_cast<float>(error.status()));
  }
  if (frames % 2 == 0) stream.finish();  // else it is given back with frames in it
  collect();
  return found;
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count < 5 || argument_count > 7) return 2;
  std::vector<avsbg::Mask> last;  // outlives the models
  try {
    avsbg_model_options options = avsbg::init<avsbg_model_options>();
    options.backend_folder = arguments[3];
    options.runtime_library = arguments[4];
    options.threads = 1;
    options.backend = arguments[5];  // the last is null
    options.trust = argument_count < 7;
    const avsbg::Model clips(arguments[1], options);
    options.uses = AVSBG_STREAMS;
    const avsbg::Model streams(arguments[2], options);
    std::vector<std::vector<float>> found(2 * kThreads);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        found[static_cast<std::size_t>(2 * i)] = run_clip(clips);
        found[static_cast<std::size_t>(2 * i + 1)] = run_stream(streams, 12 + i % 2);
        avsbg_model* none = nullptr;
        if (avsbg_model_open("/nowhere", nullptr, &none) != AVSBG_ERROR_BUNDLE) std::abort();
        if (std::strstr(avsbg_last_error(), "/nowhere") == nullptr) std::abort();
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::int32_t passed = 0;
    avsbg::check(avsbg_verify(clips.get(), 1e-3, nullptr, nullptr, &passed));
    last = segment(clips);
    const bool equal = found[0] == found[2] && found[1] == found[5] && found[3] == found[7] && !found[0].empty();
    const char* const on_device = device_masks == 0 ? "none" : device_masks == masks ? "all" : "some";
    std::printf("%zu %zu %d %d %s\n", found[0].size(), found[1].size(), equal, passed, on_device);
    if (!equal || !passed) return 1;
  } catch (const avsbg::Exception& error) {
    std::fprintf(stderr, "%s %s\n", error.what(), error.hint().c_str());
    return 1;
  }
  for (const avsbg::Mask& mask : last) count(mask);
}
