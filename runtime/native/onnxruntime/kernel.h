// The one inner loop that every path compiles: a register-blocked matrix product whose result is consumed (rectified
// and summed, or stored) while it is still in registers.
//
// A path's source defines, in an anonymous namespace, an Isa:
//     Vector            a vector of floats (GCC vector extension)
//     Operand           what multiply_add takes: a vector of floats, or of pairs of bf16
//     kRows, kVectors   the register tile: kRows rows of a by kVectors vectors of columns; kRows is even
//     kChannelsPerStep  1 for floats, 2 for pairs of bf16
//     broadcast(word), multiply_add(a, b, sum), relu(x)   where relu(NaN) is NaN
// Everything below depends on that type, so it has internal linkage: no path can end up running another's code.
#pragma once

#include <cstdint>
#include <cstring>

#include "path.h"

namespace avsbg::cpu {
namespace {

template <class Isa>
struct Kernel {
  using Vector = typename Isa::Vector;
  using Operand = typename Isa::Operand;
  using Word = std::uint32_t;
  using Quad = Word __attribute__((vector_size(16)));
  using QuadFloat = float __attribute__((vector_size(16)));
  using QuadHalf = std::uint16_t __attribute__((vector_size(8)));

  static constexpr std::int64_t kLanes = sizeof(Vector) / sizeof(float);
  static constexpr std::int64_t kRows = Isa::kRows;
  static constexpr std::int64_t kVectors = Isa::kVectors;
  static constexpr std::int64_t kColumns = kVectors * kLanes;
  static constexpr std::int64_t kStep = Isa::kChannelsPerStep;
  static_assert(sizeof(Operand) == sizeof(Vector) && kRows % 2 == 0 && kMaxBlockRows >= kRows);

  // ---- packing ----------------------------------------------------------------------------------------------------

  static QuadFloat widen(const float* source) {
    QuadFloat value;
    std::memcpy(&value, source, sizeof value);
    return value;
  }

  struct Half { std::uint16_t bits; };
  struct Bfloat { std::uint16_t bits; };

  static Quad load_halves(const void* source) {
    QuadHalf bits;
    std::memcpy(&bits, source, sizeof bits);
    return __builtin_convertvector(bits, Quad);
  }

  static QuadFloat widen(const Bfloat* source) { return (QuadFloat)(load_halves(source) << 16); }

  static QuadFloat widen(const Half* source) {
    const Quad bits = load_halves(source);
    const Quad magnitude = (bits & 0x7fff) << 13;
    // Scaling by 2^(127 - 15) moves the exponent, and makes denormals right, without a case distinction.
    const Quad finite = (Quad)((QuadFloat)magnitude * 0x1p112f);
    const Quad special = magnitude | 0x7f800000;  // infinities and NaNs keep their mantissa
    const Quad is_special = (Quad)(magnitude >= 0x0f800000);
    return (QuadFloat)(((bits & 0x8000) << 16) | (is_special & special) | (~is_special & finite));
  }

  // The nearest bf16, ties to even, in the low half of each word; a NaN stays one.
  static Quad round_to_bfloat(QuadFloat value) {
    const Quad bits = (Quad)value;
    const Quad rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Quad is_nan = (Quad)((bits & 0x7fffffff) > 0x7f800000);
    return (is_nan & ((bits >> 16) | 0x40)) | (~is_nan & rounded);
  }

  // Four steps of one row.
  template <class Source>
  static Quad load_words(const Source* source) {
    if constexpr (kStep == 1) {
      return (Quad)widen(source);
    } else {
      const QuadFloat low = widen(source), high = widen(source + 4);
      const Quad even = round_to_bfloat(__builtin_shufflevector(low, high, 0, 2, 4, 6));
      const Quad odd = round_to_bfloat(__builtin_shufflevector(low, high, 1, 3, 5, 7));
      return even | (odd << 16);
    }
  }

  // Packs `valid` rows as a panel of Width; the rows that are not there, and channels past the last, become zeros.
  template <std::int64_t Width, class Source>
  static void pack_panel(const Source* rows, std::int64_t valid, std::int64_t channels, Word* packed) {
    const std::int64_t steps = (channels + kStep - 1) / kStep;
    for (std::int64_t step = 0; step < steps; step += 4) {
      const std::int64_t channel = step * kStep;
      const std::int64_t present = channels - channel < 4 * kStep ? channels - channel : 4 * kStep;
      const std::int64_t count = steps - step < 4 ? steps - step : 4;
#pragma GCC unroll 8
      for (std::int64_t row = 0; row < Width; row += 4) {
        Quad q[4];
        for (std::int64_t i = 0; i < 4; ++i) {
          if (row + i >= valid) {
            q[i] = Quad{};
          } else if (const Source* source = rows + (row + i) * channels + channel; present == 4 * kStep) {
            q[i] = load_words(source);
          } else {
            Source padded[4 * kStep] = {};
            std::memcpy(padded, source, static_cast<std::size_t>(present) * sizeof(Source));
            q[i] = load_words(padded);
          }
        }
        const Quad low01 = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5);
        const Quad high01 = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7);
        const Quad low23 = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5);
        const Quad high23 = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
        const Quad transposed[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                                    __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                                    __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                                    __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
        constexpr std::size_t kWord = sizeof(Word);
        const std::size_t bytes = Width - row < 4 ? static_cast<std::size_t>(Width - row) * kWord : 4 * kWord;
        for (std::int64_t i = 0; i < count; ++i) {
          std::memcpy(packed + (step + i) * Width + row, &transposed[i], bytes);
        }
      }
    }
  }

  template <class Source>
  static void pack_tiles(const Source* rows, std::int64_t count, std::int64_t channels, Word* packed) {
    const std::int64_t steps = (channels + kStep - 1) / kStep;
    for (std::int64_t row = 0; row < count; row += kRows) {
      const std::int64_t valid = count - row < kRows ? count - row : kRows;
      if (valid > kRows / 2) {
        pack_panel<kRows>(rows + row * channels, valid, channels, packed + row * steps);
      } else {
        pack_panel<kRows / 2>(rows + row * channels, valid, channels, packed + row * steps);
      }
    }
  }

  template <std::int64_t Vectors, class Source>
  static void pack_narrow(const Source* rows, std::int64_t valid, std::int64_t channels, Word* packed) {
    if constexpr (Vectors > 1) {
      if (valid <= (Vectors - 1) * kLanes) {
        return pack_narrow<Vectors - 1>(rows, valid, channels, packed);
      }
    }
    pack_panel<Vectors * kLanes>(rows, valid, channels, packed);
  }

  template <class Source>
  static void pack_panels(const Source* rows, std::int64_t count, std::int64_t channels, Word* packed) {
    const std::int64_t steps = (channels + kStep - 1) / kStep;
    for (std::int64_t row = 0; row < count; row += kColumns) {
      const std::int64_t valid = count - row < kColumns ? count - row : kColumns;
      pack_narrow<kVectors>(rows + row * channels, valid, channels, packed + row * steps);
    }
  }

  template <bool Tiles, class Source>
  static void pack_from(const Matrix& matrix, std::int64_t first, std::int64_t count, Word* packed) {
    const Source* rows = static_cast<const Source*>(matrix.data) + first * matrix.channels;
    if constexpr (Tiles) {
      pack_tiles(rows, count, matrix.channels, packed);
    } else {
      pack_panels(rows, count, matrix.channels, packed);
    }
  }

  template <bool Tiles>
  static void pack(const Matrix& matrix, std::int64_t first, std::int64_t count, Word* packed) {
    switch (matrix.dtype) {
      case DataType::kFloat32: return pack_from<Tiles, float>(matrix, first, count, packed);
      case DataType::kFloat16: return pack_from<Tiles, Half>(matrix, first, count, packed);
      case DataType::kBfloat16: return pack_from<Tiles, Bfloat>(matrix, first, count, packed);
    }
  }

  // ---- the product ------------------------------------------------------------------------------------------------

  // One register tile: the products of Rows rows and Vectors vectors of columns, handed to `consume`.
  template <std::int64_t Rows, std::int64_t Vectors, class Consumer>
  static void multiply(const Word* a, const Word* b, std::int64_t steps, const Consumer& consume) {
    Vector sum[Rows][Vectors];
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
      for (std::int64_t j = 0; j < Vectors; ++j) sum[i][j] = Vector{};
    }
#pragma GCC unroll 4
    for (std::int64_t step = 0; step < steps; ++step) {
      Operand columns[Vectors];
#pragma GCC unroll 4
      for (std::int64_t j = 0; j < Vectors; ++j) {
        std::memcpy(&columns[j], b + j * kLanes, sizeof(Operand));
      }
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < Rows; ++i) {
        const Operand row = Isa::broadcast(a + i);
#pragma GCC unroll 4
        for (std::int64_t j = 0; j < Vectors; ++j) sum[i][j] = Isa::multiply_add(row, columns[j], sum[i][j]);
      }
      a += Rows;
      b += Vectors * kLanes;
    }
    consume(sum);
  }

  // Calls tile(rows, vectors, first row, first column) with the register tile's shape as compile-time constants, panel
  // by panel, so that a panel of b stays in the first-level cache while the tiles of a pass by.
  template <std::int64_t Value>
  struct Constant { static constexpr std::int64_t value = Value; };

  template <std::int64_t Vectors, class Tile>
  static void for_each_tile_of(const Block& block, std::int64_t column, const Tile& tile) {
    if constexpr (Vectors > 1) {
      if (block.columns - column <= (Vectors - 1) * kLanes) {
        return for_each_tile_of<Vectors - 1>(block, column, tile);
      }
    }
    for (std::int64_t row = 0; row < block.rows; row += kRows) {
      if (block.rows - row > kRows / 2) {
        tile(Constant<kRows>{}, Constant<Vectors>{}, row, column);
      } else {
        tile(Constant<kRows / 2>{}, Constant<Vectors>{}, row, column);
      }
    }
  }

  template <class Tile>
  static void for_each_tile(const Block& block, const Tile& tile) {
    for (std::int64_t column = 0; column < block.columns; column += kColumns) {
      for_each_tile_of<kVectors>(block, column, tile);
    }
  }

  // Lanes from `valid` on become zeros, whatever they hold: a mask, since 0 * NaN would not do.
  static Vector keep_lanes(Vector value, std::int64_t valid) {
    using Integers = decltype(value < value);
    Integers lane{};
    for (std::int64_t i = 0; i < kLanes; ++i) lane[i] = static_cast<std::int32_t>(i);
    return (Vector)((Integers)value & (lane < static_cast<std::int32_t>(valid)));
  }

  // ---- consumers --------------------------------------------------------------------------------------------------

  template <bool Edge, std::int64_t Rows, std::int64_t Vectors>
  static void sum_tile(const Block& block, std::int64_t row, std::int64_t column, Vector* row_sums,
                       float* column_sums) {
    multiply<Rows, Vectors>(
        block.a + row * block.steps, block.b + column * block.steps, block.steps,
        [&](const Vector(&sum)[Rows][Vectors]) __attribute__((always_inline)) {
          Vector down[Vectors] = {};
#pragma GCC unroll 16
          for (std::int64_t i = 0; i < Rows; ++i) {
            if (Edge && row + i >= block.rows) break;
            Vector across = row_sums[row + i];
#pragma GCC unroll 4
            for (std::int64_t j = 0; j < Vectors; ++j) {
              Vector value = Isa::relu(sum[i][j]);
              if (Edge && j == Vectors - 1) value = keep_lanes(value, block.columns - column - j * kLanes);
              across += value;
              down[j] += value;
            }
            row_sums[row + i] = across;
          }
#pragma GCC unroll 4
          for (std::int64_t j = 0; j < Vectors; ++j) {
            Vector total;
            std::memcpy(&total, column_sums + column + j * kLanes, sizeof total);
            total += down[j];
            std::memcpy(column_sums + column + j * kLanes, &total, sizeof total);
          }
        });
  }

  static void add_sums(const Block& block, float* row_sums, float* column_sums) {
    Vector rows[kMaxBlockRows] = {};
    std::memset(column_sums, 0, static_cast<std::size_t>((block.columns + kLanes - 1) / kLanes) * sizeof(Vector));
    for_each_tile(block, [&](auto height, auto width, std::int64_t row, std::int64_t column) {
      constexpr std::int64_t kHeight = decltype(height)::value, kWidth = decltype(width)::value;
      if (row + kHeight > block.rows || column + kWidth * kLanes > block.columns) {
        sum_tile<true, kHeight, kWidth>(block, row, column, rows, column_sums);
      } else {
        sum_tile<false, kHeight, kWidth>(block, row, column, rows, column_sums);
      }
    });
    for (std::int64_t row = 0; row < block.rows; ++row) {
      float total = 0;
      for (std::int64_t lane = 0; lane < kLanes; ++lane) total += rows[row][lane];
      row_sums[row] += total;
    }
  }

  template <bool Relu>
  static void write_volume_as(const Block& block, float* volume, std::int64_t stride) {
    for_each_tile(block, [&](auto height, auto width, std::int64_t row, std::int64_t column) {
      constexpr std::int64_t kHeight = decltype(height)::value, kWidth = decltype(width)::value;
      const std::int64_t present = block.columns - column;
      multiply<kHeight, kWidth>(
          block.a + row * block.steps, block.b + column * block.steps, block.steps,
          [&](const Vector(&sum)[kHeight][kWidth]) __attribute__((always_inline)) {
#pragma GCC unroll 16
            for (std::int64_t i = 0; i < kHeight; ++i) {
              if (row + i >= block.rows) break;
              float* out = volume + (row + i) * stride + column;
#pragma GCC unroll 4
              for (std::int64_t j = 0; j < kWidth; ++j) {
                const Vector value = Relu ? Isa::relu(sum[i][j]) : sum[i][j];
                if (present >= (j + 1) * kLanes) {
                  std::memcpy(out + j * kLanes, &value, sizeof value);
                } else {
                  std::memcpy(out + j * kLanes, &value, static_cast<std::size_t>(present - j * kLanes) * sizeof(float));
                }
              }
            }
          });
    });
  }

  static void write_volume(const Block& block, bool relu, float* volume, std::int64_t stride) {
    relu ? write_volume_as<true>(block, volume, stride) : write_volume_as<false>(block, volume, stride);
  }

  static constexpr Path path(const char* name) {
    return {name,         kStep == 1 ? "fp32" : "bf16", kRows, kColumns, kStep, &pack<true>, &pack<false>, &add_sums,
            &write_volume};
  }
};

}  // namespace
}  // namespace avsbg::cpu
