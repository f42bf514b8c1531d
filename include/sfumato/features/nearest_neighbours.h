#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "sfumato/dist/communicator.h"

namespace sfumato {

/// Rows of a feature matrix that may be larger than memory: computed when asked for.
class FeatureRows {
 public:
  virtual ~FeatureRows() = default;
  virtual int64_t count() const = 0;
  virtual int64_t dimension() const = 0;
  /// Memory that it takes to make one row.
  virtual int64_t row_bytes() const { return static_cast<int64_t>(sizeof(float)) * dimension(); }
  /// float32 [indices, dimension]
  virtual at::Tensor rows(std::span<const int64_t> indices) const = 0;
};

struct Neighbour {
  double distance = 0;  ///< Euclidean
  int64_t index = 0;    ///< row of the references
};

/// For each row of `queries`, float32 [n, dimension], its `k` nearest references (all of them if
/// there are fewer), nearest first. `own`: empty, or for each query the reference that is itself
/// and does not count.
///
/// |q - r|^2 = |q|^2 - 2 q.r + |r|^2 by tiles of `tile` references (0: as many as 64 MiB hold): a
/// matrix product and a heap per query. Among near copies that difference cancels, so that the
/// distances of the nearest kRefined are computed again from the rows themselves, in double
/// precision.
///
/// `ranks` (null: this process alone) have the same queries and references and share the tiles out,
/// since making the references takes as long as comparing them: a collective call. All get the
/// result, with the bits that one process finds (with as many threads): tiles are the same.
std::vector<std::vector<Neighbour>> nearest_neighbours(const at::Tensor& queries,
                                                       const FeatureRows& references, int64_t k,
                                                       std::span<const int64_t> own = {},
                                                       Communicator* ranks = nullptr,
                                                       int64_t tile = 0);
inline constexpr int64_t kRefined = 4;

/// Queries to be searched for together, so that neither they nor their products with a tile take
/// more than 64 MiB.
int64_t query_block(int64_t row_bytes);

}  // namespace sfumato
