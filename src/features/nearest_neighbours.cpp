#include "sfumato/features/nearest_neighbours.h"

#include <ATen/Parallel.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr int64_t kBlockBytes = int64_t{64} << 20;
constexpr int64_t kMostQueries = 8192, kMostReferences = 1024;

bool nearer(const Neighbour& a, const Neighbour& b) {
  return a.distance < b.distance || (a.distance == b.distance && a.index < b.index);
}

/// The k nearest so far: a heap whose top is the farthest of them. Distances are squared here.
class Nearest {
 public:
  explicit Nearest(std::size_t k) : k_(k) { heap_.reserve(k + 1); }

  void offer(const Neighbour& candidate) {
    if (heap_.size() == k_) {
      if (!nearer(candidate, heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end(), nearer);
      heap_.pop_back();
    }
    heap_.push_back(candidate);
    std::push_heap(heap_.begin(), heap_.end(), nearer);
  }
  /// No candidate above this can enter.
  float limit() const {
    return heap_.size() < k_ ? INFINITY : static_cast<float>(heap_.front().distance);
  }
  std::vector<Neighbour> sorted() {
    std::sort_heap(heap_.begin(), heap_.end(), nearer);
    return std::move(heap_);
  }

 private:
  std::size_t k_;
  std::vector<Neighbour> heap_;
};

/// Offers a tile's references, whose first is `first`, to every query.
void offer_tile(const at::Tensor& products, const at::Tensor& query_norms,
                const at::Tensor& reference_norms, int64_t first, std::span<const int64_t> own,
                std::vector<Nearest>& nearest) {
  const int64_t width = products.size(1);
  const float* product = products.const_data_ptr<float>();
  const float* of_query = query_norms.const_data_ptr<float>();
  const float* of_reference = reference_norms.const_data_ptr<float>();
  at::parallel_for(0, products.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Nearest& best = nearest[static_cast<std::size_t>(i)];
      const int64_t self = own.empty() ? -1 : own[static_cast<std::size_t>(i)] - first;
      const float* row = product + i * width;
      // What is left of the distance when the query's own norm, the same for all, is taken off.
      float limit = best.limit() - of_query[i];
      for (int64_t j = 0; j < width; ++j) {
        const float rest = of_reference[j] - 2 * row[j];
        if (rest > limit || j == self) continue;
        best.offer({static_cast<double>(rest + of_query[i]), first + j});
        limit = best.limit() - of_query[i];
      }
    }
  });
}

double exact_distance(const float* a, const float* b, int64_t dimension) {
  double sum = 0;
  for (int64_t d = 0; d < dimension; ++d) {
    const double difference = static_cast<double>(a[d]) - static_cast<double>(b[d]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

/// Parts 0 ... count - 1 of a search, of which every rank does its share. They meet after each, so
/// that none waits for long.
template <class Work>
void share_out(int64_t count, Communicator* ranks, const Work& work) {
  if (ranks == nullptr || ranks->alone()) {
    for (int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  const Slice own = slice_of(count, ranks->rank(), ranks->size());
  for (int64_t i = 0; i < (count + ranks->size() - 1) / ranks->size(); ++i) {
    if (i < own.size()) work(own.begin + i);
    ranks->barrier();
  }
}

/// Zeros for the numbers of all ranks, which each fills in its own places. As integers: their sum
/// has the bits that were filled in.
at::Tensor to_be_shared(at::IntArrayRef sizes) { return at::zeros(sizes, at::kLong); }

/// The k nearest of what all ranks have found.
std::vector<std::vector<Neighbour>> merged(std::vector<std::vector<Neighbour>> found, int64_t k,
                                           Communicator* ranks) {
  if (ranks == nullptr || ranks->alone()) return found;
  const auto n = std::ssize(found);
  const at::Tensor all = to_be_shared({ranks->size(), n, k, 2});
  int64_t* const numbers = all.mutable_data_ptr<int64_t>();
  int64_t* own = numbers + ranks->rank() * n * k * 2;
  for (const auto& nearest : found)
    for (std::size_t j = 0; j < static_cast<std::size_t>(k); ++j) {
      const Neighbour one = j < nearest.size() ? nearest[j] : Neighbour{INFINITY, -1};
      *own++ = std::bit_cast<int64_t>(one.distance);
      *own++ = one.index;
    }
  ranks->all_reduce_sum({all});
  for (int64_t i = 0; i < n; ++i) {
    std::vector<Neighbour>& nearest = found[static_cast<std::size_t>(i)];
    nearest.clear();
    for (int64_t rank = 0; rank < ranks->size(); ++rank) {
      const int64_t* one = numbers + (rank * n + i) * k * 2;
      for (int64_t j = 0; j < k; ++j, one += 2)
        if (one[1] >= 0) nearest.push_back({std::bit_cast<double>(one[0]), one[1]});
    }
    std::sort(nearest.begin(), nearest.end(), nearer);
    nearest.resize(std::min(nearest.size(), static_cast<std::size_t>(k)));
  }
  return found;
}

std::size_t refined_of(const std::vector<Neighbour>& nearest) {
  return std::min<std::size_t>(nearest.size(), kRefined);
}

/// Distances of the first few anew, from the rows themselves; the order among these may change.
/// `rows` references are made at once.
void refine(const at::Tensor& queries, const FeatureRows& references, int64_t rows,
            Communicator* ranks, std::vector<std::vector<Neighbour>>& found) {
  const int64_t dimension = queries.size(1), n = std::ssize(found);
  const int64_t group = std::max<int64_t>(rows / kRefined, 1);
  const at::Tensor bits = to_be_shared({n, kRefined});
  int64_t* const distances = bits.mutable_data_ptr<int64_t>();
  share_out((n + group - 1) / group, ranks, [&](int64_t part) {
    const int64_t begin = part * group, end = std::min(begin + group, n);
    std::vector<int64_t> indices;
    for (int64_t i = begin; i < end; ++i)
      for (std::size_t j = 0; j < refined_of(found[static_cast<std::size_t>(i)]); ++j)
        indices.push_back(found[static_cast<std::size_t>(i)][j].index);
    const at::Tensor made = references.rows(indices).contiguous();
    const float* row = made.const_data_ptr<float>();
    for (int64_t i = begin; i < end; ++i) {
      const float* query = queries.const_data_ptr<float>() + i * dimension;
      const auto count = static_cast<int64_t>(refined_of(found[static_cast<std::size_t>(i)]));
      for (int64_t j = 0; j < count; ++j, row += dimension)
        distances[i * kRefined + j] = std::bit_cast<int64_t>(exact_distance(query, row, dimension));
    }
  });
  if (ranks != nullptr) ranks->all_reduce_sum({bits});
  const int64_t* distance = distances;
  for (std::vector<Neighbour>& nearest : found) {
    for (std::size_t j = 0; j < refined_of(nearest); ++j)
      nearest[j].distance = std::bit_cast<double>(distance[j]);
    distance += kRefined;
    std::sort(nearest.begin(), nearest.end(), nearer);
  }
}

}  // namespace

std::vector<std::vector<Neighbour>> nearest_neighbours(const at::Tensor& queries,
                                                       const FeatureRows& references, int64_t k,
                                                       std::span<const int64_t> own,
                                                       Communicator* ranks, int64_t tile) {
  if (tile == 0)
    tile = std::clamp<int64_t>(kBlockBytes / references.row_bytes(), 1, kMostReferences);
  const int64_t n = queries.size(0), total = references.count();
  if (queries.size(1) != references.dimension() || (!own.empty() && std::ssize(own) != n))
    throw UsageError("queries and references of a neighbour search do not fit each other");
  const int64_t available = total - (own.empty() ? 0 : 1);
  if (k < 1 || available < 1)
    throw UsageError("a search for nearest neighbours needs references to find");
  const at::Tensor q = queries.contiguous();
  const at::Tensor query_norms = q.square().sum(1);
  const int64_t kept = std::min(k, available);
  std::vector<Nearest> nearest(static_cast<std::size_t>(n),
                               Nearest(static_cast<std::size_t>(kept)));
  share_out((total + tile - 1) / tile, ranks, [&](int64_t part) {
    const int64_t first = part * tile;
    std::vector<int64_t> indices(static_cast<std::size_t>(std::min(tile, total - first)));
    std::iota(indices.begin(), indices.end(), first);
    const at::Tensor rows = references.rows(indices);
    offer_tile(at::matmul(q, rows.t()), query_norms, rows.square().sum(1).contiguous(), first, own,
               nearest);
  });
  std::vector<std::vector<Neighbour>> found;
  found.reserve(nearest.size());
  for (Nearest& best : nearest) found.push_back(best.sorted());
  found = merged(std::move(found), kept, ranks);
  for (std::vector<Neighbour>& one : found)
    for (Neighbour& neighbour : one)
      neighbour.distance = std::sqrt(std::max(neighbour.distance, 0.0));
  refine(q, references, tile, ranks, found);
  return found;
}

int64_t query_block(int64_t row_bytes) {
  return std::clamp<int64_t>(kBlockBytes / row_bytes, 1, kMostQueries);
}

}  // namespace sfumato
