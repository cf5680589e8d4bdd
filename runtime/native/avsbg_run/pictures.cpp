#include "pictures.h"

#include <algorithm>
#include <numeric>

#include "outputs.h"

namespace avsbg_run {
namespace {

struct Glyph {
  int advance, left, top, width, height;
  const char* coverage;  // a hexadecimal digit for each pixel
};
constexpr Glyph kGlyphs[] = {
#include "font.inc"
};
constexpr int kLine = 14;  // pixels
constexpr int kColumns = 5, kTileSize = 320;
constexpr std::size_t kMostTiles = 40;

// The characters of a text that there are glyphs for; a question mark stands for others.
std::vector<const Glyph*> glyphs_of(const std::string& text) {
  std::vector<const Glyph*> found;
  for (const char one : text) {
    const auto code = static_cast<unsigned char>(one);
    if ((code & 0xC0) == 0x80) continue;  // within a character of several bytes
    found.push_back(&kGlyphs[code >= 32 && code < 127 ? code - 32 : '?' - 32]);
  }
  return found;
}

int text_width(const std::string& text) {
  const std::vector<const Glyph*> glyphs = glyphs_of(text);
  return std::accumulate(glyphs.begin(), glyphs.end(), 0, [](int sum, const Glyph* one) { return sum + one->advance; });
}

void draw_text(Picture& picture, int x, int y, const std::string& text, int grey) {
  for (const Glyph* const glyph : glyphs_of(text)) {
    for (int place = 0; place < glyph->width * glyph->height; ++place) {
      const int column = x + glyph->left + place % glyph->width, row = y + glyph->top + place / glyph->width;
      if (column < 0 || column >= picture.width || row < 0 || row >= picture.height) continue;
      const char digit = glyph->coverage[place];
      const int cover = 17 * (digit <= '9' ? digit - '0' : digit - 'a' + 10);
      std::uint8_t* const at = picture.pixels.data() + 3 * (static_cast<std::ptrdiff_t>(row) * picture.width + column);
      for (int channel = 0; channel < 3; ++channel) {
        at[channel] = static_cast<std::uint8_t>((at[channel] * (255 - cover) + grey * cover + 127) / 255);
      }
    }
    x += glyph->advance;
  }
}

const std::uint8_t* class_colour(int number) { return class_colours().data() + 3 * static_cast<std::ptrdiff_t>(number); }

// RGB in another size.
Picture scaled(const Picture& picture, int width, int height) {
  if (width == picture.width && height == picture.height) return picture;
  const Owned<SwsContext> scaler(sws_getContext(picture.width, picture.height, AV_PIX_FMT_RGB24, width, height,
                                                AV_PIX_FMT_RGB24, SWS_BICUBIC, nullptr, nullptr, nullptr));
  if (!scaler) throw MediaError("the overlay's page of seconds cannot be made.", "Use --no-overlay.");
  // swscale reads a pointer and a stride for each of four planes, and writes up to 15 bytes beyond a row.
  Picture result{width, height, std::vector<std::uint8_t>(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height) + 64)};
  const std::uint8_t* const from[4] = {picture.pixels.data()};
  std::uint8_t* const to[4] = {result.pixels.data()};
  const int from_stride[4] = {3 * picture.width}, to_stride[4] = {3 * width};
  sws_scale(scaler.get(), from, from_stride, 0, picture.height, to, to_stride);
  result.pixels.resize(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
  return result;
}

void paste(Picture& page, const Picture& picture, int x, int y) {
  for (int row = 0; row < std::min(picture.height, page.height - y); ++row) {
    const auto* const from = picture.pixels.data() + 3 * static_cast<std::ptrdiff_t>(row) * picture.width;
    std::copy_n(from, 3 * std::min(picture.width, page.width - x),
                page.pixels.data() + 3 * (static_cast<std::ptrdiff_t>(y + row) * page.width + x));
  }
}

Picture make_picture(int width, int height) {
  return {width, height, std::vector<std::uint8_t>(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height))};
}

}  // namespace

Picture make_legend(const std::vector<std::uint8_t>& mask, int width, int height, const std::vector<std::string>& labels) {
  std::vector<std::int64_t> areas(256);
  for (const std::uint8_t one : mask) ++areas[one];
  std::vector<int> found;
  for (int number = 1; number < static_cast<int>(labels.size()); ++number) {
    if (areas[static_cast<std::size_t>(number)] > 0) found.push_back(number);
  }
  std::stable_sort(found.begin(), found.end(), [&](int one, int other) {
    return areas[static_cast<std::size_t>(one)] > areas[static_cast<std::size_t>(other)];
  });
  found.resize(std::min(found.size(), static_cast<std::size_t>(height / kLine)));
  if (found.empty()) return {};
  int widest = 0;
  for (const int number : found) widest = std::max(widest, text_width(labels[static_cast<std::size_t>(number)]));
  Picture panel = make_picture(std::min(widest + 2 * kLine, width) / 2 * 2, kLine * static_cast<int>(found.size()));
  for (std::size_t i = 0; i < found.size(); ++i) {
    const int top = kLine * static_cast<int>(i);
    for (int y = top + 2; y <= top + 11; ++y) {
      for (int x = 2; x <= std::min(11, panel.width - 1); ++x) {
        std::copy_n(class_colour(found[i]), 3, panel.pixels.data() + 3 * (static_cast<std::ptrdiff_t>(y) * panel.width + x));
      }
    }
    draw_text(panel, 16, top, labels[static_cast<std::size_t>(found[i])], 255);
  }
  return panel;
}

void ContactSheet::add(std::int64_t second, const Picture& frame, const std::vector<std::uint8_t>& mask) {
  if (second % step_ != 0) return;
  Picture tile = frame;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    const std::uint8_t* const colour = labels_.empty() ? kTint.data() : class_colour(mask[i]);
    for (std::size_t channel = 0; channel < 3; ++channel) {
      std::uint8_t& value = tile.pixels[3 * i + channel];
      value = static_cast<std::uint8_t>((value >> 1) + (colour[channel] >> 1));
    }
  }
  if (!labels_.empty()) paste(tile, make_legend(mask, frame.width, frame.height, labels_), 0, 0);
  // Square pixels, within a tile.
  const Fraction shown = Fraction(tile.width) * fraction(video_.look.pixel_aspect);
  const Fraction scale = std::min(Fraction(1), Fraction(kTileSize) / std::max(shown, Fraction(tile.height)));
  const auto fitted = [&](const Fraction& size) { return static_cast<int>(std::max<std::int64_t>(1, (size * scale).round())); };
  tile = scaled(tile, fitted(shown), fitted(Fraction(tile.height)));
  // In the corner that a legend of classes leaves free.
  const std::string text = std::to_string(second) + " s";
  const int x = tile.width - 6 - text_width(text), y = 4;
  for (int down = -2; down <= 2; ++down) {
    for (int right = -2; right <= 2; ++right) {
      if (down * down + right * right <= 5) draw_text(tile, x + right, y + down, text, 0);
    }
  }
  draw_text(tile, x, y, text, 255);
  tiles_.emplace_back(second, std::move(tile));
  if (tiles_.size() > kMostTiles) {
    step_ *= 2;
    const auto is_left_out = [&](const auto& one) { return one.first % step_ != 0; };
    // A live source that lost seconds may have tiles of odd ones alone: the first stays.
    const bool leaves_none = std::all_of(tiles_.begin(), tiles_.end(), is_left_out);
    tiles_.erase(leaves_none ? tiles_.begin() + 1 : std::remove_if(tiles_.begin(), tiles_.end(), is_left_out), tiles_.end());
  }
}

void ContactSheet::save(const std::string& path) const {
  const Picture& first = tiles_.at(0).second;
  const int count = static_cast<int>(tiles_.size()), columns = std::min(kColumns, count);
  Picture page = make_picture(columns * first.width, (count + columns - 1) / columns * first.height);
  for (int i = 0; i < count; ++i) {
    paste(page, tiles_[static_cast<std::size_t>(i)].second, i % columns * first.width, i / columns * first.height);
  }
  write_png(path, page.pixels, page.width, page.height, Colours::kRgb);
}

}  // namespace avsbg_run
