#include "sfumato/evaluate/manifold.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"

namespace sfumato {
namespace {

constexpr float kFar = std::numeric_limits<float>::infinity();
constexpr int64_t kGrain = 64;
constexpr int64_t kChunk = 64;  // distances that are looked at together

/// Rows around a common centre, with their squared norms.
struct Rows {
  at::Tensor values;  ///< float32 [n, d]
  at::Tensor norms;   ///< float32 [n]
  int64_t count() const { return values.size(0); }
};

Rows centred(const FeatureSet& set, const at::Tensor& centre) {
  Rows rows{(set.features - centre).contiguous(), {}};
  // In parts: the squares of all would be as large as the features.
  rows.norms = at::empty({rows.count()}, at::kFloat);
  constexpr int64_t kPart = 1024;
  for (int64_t begin = 0; begin < rows.count(); begin += kPart) {
    const int64_t size = std::min(kPart, rows.count() - begin);
    rows.norms.narrow(0, begin, size)
        .copy_(rows.values.narrow(0, begin, size).to(at::kDouble).square_().sum(1));
  }
  return rows;
}

/// A block of squared distances, [rows, columns], in a buffer that is used again.
class Block {
 public:
  explicit Block(int64_t tile) : buffer_(at::empty({tile * tile}, at::kFloat)) {}

  void compute(const Rows& a, int64_t row, int64_t rows, const Rows& b, int64_t column,
               int64_t columns) {
    if (stop_requested()) throw Interrupted("stopped; nothing was written");
    at::Tensor out = buffer_.narrow(0, 0, rows * columns).view({rows, columns});
    at::matmul_out(out, a.values.narrow(0, row, rows), b.values.narrow(0, column, columns).t());
    float* const distance = out.mutable_data_ptr<float>();
    const float* const of_row = a.norms.const_data_ptr<float>() + row;
    const float* const of_column = b.norms.const_data_ptr<float>() + column;
    at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float* const squared_of = distance + i * columns;
        const float own = of_row[i];
#pragma omp simd
        for (int64_t j = 0; j < columns; ++j) {
          const float squared = own + of_column[j] - 2 * squared_of[j];
          squared_of[j] = squared > 0 ? squared : 0;
        }
      }
    });
    rows_ = rows, columns_ = columns;
  }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  const float* row(int64_t i) const { return buffer_.const_data_ptr<float>() + i * columns_; }
  /// Nothing is its own neighbour.
  void forget_diagonal() {
    float* const distance = buffer_.mutable_data_ptr<float>();
    for (int64_t i = 0; i < std::min(rows_, columns_); ++i) distance[i * columns_ + i] = kFar;
  }

 private:
  at::Tensor buffer_;
  int64_t rows_ = 0, columns_ = 0;
};

/// Of each point the k smallest of the squared distances that it was offered, ascending.
class Smallest {
 public:
  Smallest(int64_t points, int64_t k)
      : k_(k),
        values_(static_cast<std::size_t>(points * k), kFar),
        farthest_(static_cast<std::size_t>(points), kFar) {}

  /// The distances of one point, `values` in number.
  void offer(int64_t point, const float* distances, int64_t values) {
    for (int64_t begin = 0; begin < values; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, values);
      const float limit = farthest_[static_cast<std::size_t>(point)];
      int nearer = 0;
#pragma omp simd reduction(| : nearer)
      for (int64_t j = begin; j < end; ++j) nearer |= distances[j] < limit;
      if (nearer == 0) continue;
      for (int64_t j = begin; j < end; ++j) insert(point, distances[j]);
    }
  }
  /// One distance of each point from `first` on.
  void offer_to_each(int64_t first, const float* distances, int64_t values) {
    const float* const limits = farthest_.data() + first;
    for (int64_t begin = 0; begin < values; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, values);
      int nearer = 0;
#pragma omp simd reduction(| : nearer)
      for (int64_t j = begin; j < end; ++j) nearer |= distances[j] < limits[j];
      if (nearer == 0) continue;
      for (int64_t j = begin; j < end; ++j) insert(first + j, distances[j]);
    }
  }
  /// Squared radii: the k-th smallest.
  std::vector<float> radii(int64_t k) const {
    std::vector<float> found;
    for (std::size_t at = static_cast<std::size_t>(k - 1); at < values_.size();
         at += static_cast<std::size_t>(k_))
      found.push_back(values_[at]);
    return found;
  }

 private:
  void insert(int64_t point, float distance) {
    float* const best = values_.data() + point * k_;
    if (distance >= best[k_ - 1]) return;
    int64_t at = k_ - 1;
    for (; at > 0 && best[at - 1] > distance; --at) best[at] = best[at - 1];
    best[at] = distance;
    farthest_[static_cast<std::size_t>(point)] = best[k_ - 1];
  }

  int64_t k_;
  std::vector<float> values_;
  std::vector<float> farthest_;  ///< the k-th of each point, side by side
};

/// Every pair of a set once: a block above the diagonal serves its rows and its columns.
Smallest own_neighbours(const Rows& rows, int64_t k, int64_t tile, Block& block) {
  Smallest smallest(rows.count(), k);
  for (int64_t top = 0; top < rows.count(); top += tile)
    for (int64_t left = top; left < rows.count(); left += tile) {
      block.compute(rows, top, std::min(tile, rows.count() - top), rows, left,
                    std::min(tile, rows.count() - left));
      if (left == top) block.forget_diagonal();
      at::parallel_for(0, block.rows(), kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          smallest.offer(top + i, block.row(i), block.columns());
      });
      if (left == top) continue;
      at::parallel_for(0, block.columns(), kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = 0; i < block.rows(); ++i)
          smallest.offer_to_each(left + begin, block.row(i) + begin, end - begin);
      });
    }
  return smallest;
}

struct Radii {
  std::vector<float> corpus_precision, reference_precision, reference_density;
};

/// What comes of each image as blocks of corpus x reference pass.
struct Hits {
  std::vector<int> in_reference, in_corpus, holds;
  std::vector<int64_t> balls;  ///< of the reference that hold an image of the corpus
  std::vector<int64_t> nearest;
  std::vector<float> nearest_distance;

  Hits(std::size_t corpus, std::size_t reference)
      : in_reference(corpus),
        in_corpus(reference),
        holds(reference),
        balls(corpus),
        nearest(corpus),
        nearest_distance(corpus, kFar) {}
};

void look_along_rows(const Block& block, int64_t top, int64_t left, const Radii& radii,
                     Hits& hits) {
  const float* const of_precision = radii.reference_precision.data() + left;
  const float* const of_density = radii.reference_density.data() + left;
  at::parallel_for(0, block.rows(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto image = static_cast<std::size_t>(top + i);
      const float* const row = block.row(i);
      int inside = 0, balls = 0;
      float least = kFar;
#pragma omp simd reduction(| : inside) reduction(+ : balls) reduction(min : least)
      for (int64_t j = 0; j < block.columns(); ++j) {
        inside |= row[j] <= of_precision[j];
        balls += row[j] <= of_density[j];
        least = row[j] < least ? row[j] : least;
      }
      hits.in_reference[image] |= inside;
      hits.balls[image] += balls;
      if (least >= hits.nearest_distance[image]) continue;
      hits.nearest_distance[image] = least;
      hits.nearest[image] = left + (std::find(row, row + block.columns(), least) - row);
    }
  });
}

void look_along_columns(const Block& block, int64_t top, int64_t left, const Radii& radii,
                        Hits& hits) {
  const float* const of_density = radii.reference_density.data() + left;
  int* const in_corpus = hits.in_corpus.data() + left;
  int* const holds = hits.holds.data() + left;
  at::parallel_for(0, block.columns(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < block.rows(); ++i) {
      const float radius = radii.corpus_precision[static_cast<std::size_t>(top + i)];
      const float* const row = block.row(i);
#pragma omp simd
      for (int64_t j = begin; j < end; ++j) {
        in_corpus[j] |= row[j] <= radius;
        holds[j] |= row[j] <= of_density[j];
      }
    }
  });
}

double share(const std::vector<int>& flags) {
  return static_cast<double>(std::ranges::count(flags, 1)) / static_cast<double>(flags.size());
}

/// Anew from the rows: between near copies the difference of large numbers says nothing.
double exact_distance_of(const Rows& a, int64_t i, const Rows& b, int64_t j) {
  const int64_t d = a.values.size(1);
  const float* const x = a.values.const_data_ptr<float>() + i * d;
  const float* const y = b.values.const_data_ptr<float>() + j * d;
  double sum = 0;
  for (int64_t at = 0; at < d; ++at) {
    const double difference = static_cast<double>(x[at]) - static_cast<double>(y[at]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

ManifoldScores scores_of(const Hits& hits, const ManifoldOptions& options) {
  ManifoldScores scores;
  scores.precision_k = options.precision_k;
  scores.density_k = options.density_k;
  scores.precision = share(hits.in_reference);
  scores.recall = share(hits.in_corpus);
  scores.coverage = share(hits.holds);
  int64_t balls = 0;
  for (const int64_t count : hits.balls) balls += count;
  scores.density =
      static_cast<double>(balls) / static_cast<double>(options.density_k * std::ssize(hits.balls));
  scores.nearest = hits.nearest;
  return scores;
}

}  // namespace

ManifoldScores manifold_scores(const FeatureSet& corpus, const FeatureSet& reference,
                               ManifoldOptions options) {
  const at::NoGradGuard no_grad;
  require_alike(corpus.facts, reference.facts);
  if (options.precision_k < 1 || options.density_k < 1 || options.tile < 1)
    throw UsageError("precision, recall, density and coverage take one neighbour or more");
  const int64_t k = std::max(options.precision_k, options.density_k);
  check_features(corpus, "the corpus", k + 1);
  check_features(reference, "the reference", k + 1);
  const at::Tensor centre = reference.features.mean(0);
  const Rows fake = centred(corpus, centre), real = centred(reference, centre);
  Block block(std::min(options.tile, std::max(fake.count(), real.count())));
  Radii radii;
  radii.corpus_precision =
      own_neighbours(fake, options.precision_k, options.tile, block).radii(options.precision_k);
  {
    const Smallest smallest = own_neighbours(real, k, options.tile, block);
    radii.reference_precision = smallest.radii(options.precision_k);
    radii.reference_density = smallest.radii(options.density_k);
  }
  Hits hits(static_cast<std::size_t>(fake.count()), static_cast<std::size_t>(real.count()));
  for (int64_t top = 0; top < fake.count(); top += options.tile)
    for (int64_t left = 0; left < real.count(); left += options.tile) {
      block.compute(fake, top, std::min(options.tile, fake.count() - top), real, left,
                    std::min(options.tile, real.count() - left));
      look_along_rows(block, top, left, radii, hits);
      look_along_columns(block, top, left, radii, hits);
    }
  ManifoldScores scores = scores_of(hits, options);
  for (std::size_t i = 0; i < scores.nearest.size(); ++i)
    scores.nearest_distance.push_back(
        exact_distance_of(fake, static_cast<int64_t>(i), real, scores.nearest[i]));
  return scores;
}

}  // namespace sfumato
