// A path is the operator's inner loop compiled for one instruction set. This header is all that the rest knows of it.
// It holds no inline functions: each path's source is compiled with its own flags, and an inline function shared with
// the others could be the copy that the linker keeps.
#pragma once

#include <cstdint>

namespace avsbg::cpu {

enum class DataType : std::int32_t { kFloat32, kFloat16, kBfloat16 };

// Rows of descriptors, dense: `rows` rows of `channels` values.
struct Matrix {
  const void* data;
  DataType dtype;
  std::int64_t rows;
  std::int64_t channels;
};

// Packed operands: a in tiles of `tile_rows` rows, b in panels of `panel_columns` rows (columns of the volume). Within
// either, one step of the sum over channels after the other, and in a step one 32-bit word per row: a float, or two
// neighbouring channels in bf16. The last tile and panel may be narrower; all follow each other without gaps.
struct Block {
  const std::uint32_t* a;
  const std::uint32_t* b;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t steps;  // channels / channels_per_step, rounded up
};

struct Path {
  const char* name;
  const char* compute;  // the type whose products are summed: "fp32" or "bf16"
  std::int64_t tile_rows;
  std::int64_t panel_columns;
  std::int64_t channels_per_step;

  // Packs the rows [first, first + count) of the matrix; first is a multiple of the tile's or panel's width.
  void (*pack_a)(const Matrix& matrix, std::int64_t first, std::int64_t count, std::uint32_t* packed);
  void (*pack_b)(const Matrix& matrix, std::int64_t first, std::int64_t count, std::uint32_t* packed);

  // Adds the block's rectified sums over columns to row_sums [rows], and writes those over rows to column_sums
  // [columns, rounded up to a panel].
  void (*add_sums)(const Block& block, float* row_sums, float* column_sums);

  // Writes the block of the volume; row r starts at volume + r * stride.
  void (*write_volume)(const Block& block, bool relu, float* volume, std::int64_t stride);
};

// Rows per call of add_sums at most.
inline constexpr std::int64_t kMaxBlockRows = 128;

}  // namespace avsbg::cpu
