// Cuts a problem into what fits the caches and the workspace, and hands the pieces to the threads.
//
// A chunk is some rows of a against some columns (rows of b) for a group of pairs. Its operands are packed once, then
// each block of rows meets all columns of the chunk. A block owns its rows' sums; the sums over rows are written per
// block and added up in the blocks' order afterwards, so that the result does not depend on who ran what.
#include "correlation.h"

#include <algorithm>

namespace avsbg::cpu {
namespace {

constexpr std::int64_t kBlockRows = 112;           // a block of a stays in the second-level cache: 56 KiB at C = 128
constexpr std::int64_t kPackedBytes = 2 << 20;     // per operand and chunk
constexpr std::int64_t kMaxBlocks = 64;            // per pair and chunk: bounds the sums over rows, with ...
constexpr std::int64_t kMaxColumns = 4096;
constexpr std::int64_t kSerialProducts = 1 << 19;  // fewer multiply-adds than waking a thread costs

std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }
std::int64_t round_up(std::int64_t value, std::int64_t to) { return divide_up(value, to) * to; }

// Pieces of at most `limit`, multiples of `unit`, as equal as can be.
std::int64_t even_pieces(std::int64_t total, std::int64_t limit, std::int64_t unit) {
  limit = std::max(limit / unit * unit, unit);
  return round_up(divide_up(total, divide_up(total, limit)), unit);
}

// A pair's part of one chunk.
struct Piece {
  std::int64_t pair;
  std::int64_t first_row, rows;
  std::int64_t first_column, columns;
  std::uint32_t* a;
  std::uint32_t* b;
  float* column_sums;  // [blocks, column_stride]
};

class Plan {
 public:
  Plan(const Path& path, const Problem& problem, const Resources& resources)
      : path_(path),
        problem_(problem),
        resources_(resources),
        steps_(divide_up(problem.c, path.channels_per_step)),
        block_rows_(std::max<std::int64_t>(kBlockRows / path.tile_rows, 1) * path.tile_rows),
        slab_columns_(std::max<std::int64_t>(kBlockRows / path.panel_columns, 1) * path.panel_columns) {
    const std::int64_t fitting = kPackedBytes / (4 * steps_);
    chunk_rows_ = even_pieces(problem.p, std::min(fitting, kMaxBlocks * block_rows_), block_rows_);
    chunk_columns_ = even_pieces(problem.q, std::min(fitting, kMaxColumns), path.panel_columns);
    a_words_ = round_up(chunk_rows_ * steps_, 16);
    b_words_ = round_up(chunk_columns_ * steps_, 16);
    sums_ = round_up(divide_up(chunk_rows_, block_rows_) * chunk_columns_, 16);
    const std::int64_t pair_bytes = 4 * (a_words_ + b_words_ + sums_);
    group_ = std::clamp<std::int64_t>(static_cast<std::int64_t>(kWorkspaceBytes) / pair_bytes, 1, problem.n);
    memory_ = static_cast<std::uint32_t*>(resources.allocate(static_cast<std::size_t>(pair_bytes * group_)));
    serial_ = problem.n * problem.p * problem.q * problem.c < kSerialProducts;
  }

  // Packs chunk after chunk and calls compute(piece, first row in it, rows, column sums) for every block, then
  // finish(piece, first column in it, columns) for every slab of columns.
  template <class Compute, class Finish>
  void run(const Compute& compute, const Finish& finish) const {
    for (std::int64_t pair = 0; pair < problem_.n; pair += group_) {
      const std::int64_t pairs = std::min(group_, problem_.n - pair);
      for (std::int64_t row = 0; row < problem_.p; row += chunk_rows_) {
        for (std::int64_t column = 0; column < problem_.q; column += chunk_columns_) {
          const auto piece = [&](std::int64_t i) { return this->piece(pair, i, row, column); };
          const std::int64_t blocks = divide_up(piece(0).rows, block_rows_);
          const std::int64_t slabs = divide_up(piece(0).columns, slab_columns_);
          const std::int64_t packed_blocks = column == 0 ? blocks : 0;  // a is still there for the other columns
          for_each(pairs, packed_blocks + slabs, [&](std::int64_t i, std::int64_t part) {
            part < packed_blocks ? pack_block(piece(i), part) : pack_slab(piece(i), part - packed_blocks);
          });
          for_each(pairs, blocks, [&](std::int64_t i, std::int64_t part) {
            const Piece p = piece(i);
            const std::int64_t first = part * block_rows_;
            const Block block{p.a + first * steps_, p.b, std::min(block_rows_, p.rows - first), p.columns, steps_};
            compute(p, block, first, p.column_sums + part * chunk_columns_);
          });
          for_each(pairs, slabs, [&](std::int64_t i, std::int64_t part) {
            const Piece p = piece(i);
            const std::int64_t first = part * slab_columns_;
            finish(p, blocks, first, std::min(slab_columns_, p.columns - first));
          });
        }
      }
    }
  }

  std::int64_t column_stride() const { return chunk_columns_; }

 private:
  template <class Task>
  void for_each(std::int64_t pairs, std::int64_t parts, const Task& task) const {
    const std::function<void(std::size_t)> run_one = [&](std::size_t index) {
      task(static_cast<std::int64_t>(index) / parts, static_cast<std::int64_t>(index) % parts);
    };
    const auto count = static_cast<std::size_t>(pairs * parts);
    if (serial_) {
      for (std::size_t i = 0; i < count; ++i) run_one(i);
    } else {
      resources_.parallel_for(count, run_one);
    }
  }

  Piece piece(std::int64_t first_pair, std::int64_t i, std::int64_t row, std::int64_t column) const {
    std::uint32_t* const memory = memory_ + i * (a_words_ + b_words_ + sums_);
    return {first_pair + i,
            row,
            std::min(chunk_rows_, problem_.p - row),
            column,
            std::min(chunk_columns_, problem_.q - column),
            memory,
            memory + a_words_,
            reinterpret_cast<float*>(memory + a_words_ + b_words_)};
  }

  Matrix matrix(const void* data, std::int64_t pair, std::int64_t rows) const {
    const std::int64_t value_bytes = problem_.dtype == DataType::kFloat32 ? 4 : 2;
    return {static_cast<const char*>(data) + pair * rows * problem_.c * value_bytes, problem_.dtype, rows, problem_.c};
  }

  void pack_block(const Piece& p, std::int64_t part) const {
    const std::int64_t first = part * block_rows_;
    path_.pack_a(matrix(problem_.a, p.pair, problem_.p), p.first_row + first, std::min(block_rows_, p.rows - first),
                 p.a + first * steps_);
  }

  void pack_slab(const Piece& p, std::int64_t part) const {
    const std::int64_t first = part * slab_columns_;
    path_.pack_b(matrix(problem_.b, p.pair, problem_.q), p.first_column + first,
                 std::min(slab_columns_, p.columns - first), p.b + first * steps_);
  }

  const Path& path_;
  const Problem& problem_;
  const Resources& resources_;
  std::int64_t steps_;
  std::int64_t block_rows_, slab_columns_;
  std::int64_t chunk_rows_, chunk_columns_;
  std::int64_t a_words_, b_words_, sums_;
  std::int64_t group_;
  std::uint32_t* memory_;
  bool serial_;
};

void scale(float* values, std::int64_t count, std::int64_t terms) {
  for (std::int64_t i = 0; i < count; ++i) values[i] /= static_cast<float>(terms);
}

}  // namespace

void mean_correlation(const Path& path, const Problem& problem, float* mean_a, float* mean_b,
                      const Resources& resources) {
  if (problem.n == 0) return;
  std::fill_n(mean_a, problem.n * problem.p, 0.0f);
  if (mean_b != nullptr) std::fill_n(mean_b, problem.n * problem.q, 0.0f);
  const Plan plan(path, problem, resources);
  plan.run(
      [&](const Piece& piece, const Block& block, std::int64_t first, float* column_sums) {
        path.add_sums(block, mean_a + piece.pair * problem.p + piece.first_row + first, column_sums);
      },
      [&](const Piece& piece, std::int64_t blocks, std::int64_t first, std::int64_t columns) {
        if (mean_b == nullptr) return;
        float* const out = mean_b + piece.pair * problem.q + piece.first_column + first;
        for (std::int64_t block = 0; block < blocks; ++block) {
          const float* const sums = piece.column_sums + block * plan.column_stride() + first;
          for (std::int64_t i = 0; i < columns; ++i) out[i] += sums[i];
        }
      });
  scale(mean_a, problem.n * problem.p, problem.q);
  if (mean_b != nullptr) scale(mean_b, problem.n * problem.q, problem.p);
}

void correlation_volume(const Path& path, const Problem& problem, bool relu, float* volume,
                        const Resources& resources) {
  if (problem.n == 0) return;
  const Plan plan(path, problem, resources);
  plan.run(
      [&](const Piece& piece, const Block& block, std::int64_t first, float*) {
        const std::int64_t row = piece.pair * problem.p + piece.first_row + first;
        path.write_volume(block, relu, volume + row * problem.q + piece.first_column, problem.q);
      },
      [](const Piece&, std::int64_t, std::int64_t, std::int64_t) {});
}

}  // namespace avsbg::cpu
