// avsbg.hpp in use: a stream of grey frames with silence, whose masks are counted.
#include <avsbg.hpp>
#include <cstdio>

int main(int count, char** arguments) {
  if (count != 3) return 2;
  try {
    avsbg_model_options options = avsbg::init<avsbg_model_options>();
    options.uses = AVSBG_STREAMS;
    options.runtime_library = arguments[2];
    const avsbg::Model model(arguments[1], options);
    avsbg::Stream stream(model);
    const std::vector<std::uint8_t> pixels(3 * 64 * 48, 7);
    const std::vector<float> sound(static_cast<std::size_t>(model.info().sample_rate), 0.25F);
    std::vector<avsbg::Mask> masks;
    for (int second = 0; second < 4; ++second) {
      stream.push_sound(sound.data(), sound.size());
      stream.push(avsbg::frame(pixels.data(), 64, 48));
      for (const avsbg::Mask& mask : stream.poll()) masks.push_back(mask);
    }
    stream.finish();
    for (const avsbg::Mask& mask : stream.poll()) masks.push_back(mask);
    for (const avsbg::Mask& mask : masks) {
      std::printf("%d %.4f %d %.2f %zu\n", static_cast<int>(mask->index), mask->time, mask->partner,
                  static_cast<double>(mask->probability[0]), mask.decide(8, 8).size());
    }
    stream.push(avsbg::frame(pixels.data(), 64, 48));
  } catch (const avsbg::Exception& error) {
    std::printf("%s: %s\n", avsbg_status_name(error.status()), error.what());
    return error.status() == AVSBG_ERROR_BACKEND ? 0 : 1;
  }
  return 1;
}
