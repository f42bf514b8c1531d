#include "audit/noise_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sfumato {
namespace {

/// Sums of powers of many values.
struct Moments {
  int64_t count = 0;
  double sum = 0, squares = 0, fourths = 0;

  void add(const float* values, int64_t n) {
    count += n;
    for (int64_t i = 0; i < n; ++i) {
      const double v = static_cast<double>(values[i]), square = v * v;
      sum += v;
      squares += square;
      fourths += square * square;
    }
  }
  double n() const { return static_cast<double>(count); }
  double variance_p_value() const { return chi_square_p_value(squares, n()); }
};

}  // namespace

NoiseSample::NoiseSample(std::vector<int64_t> tensor_sizes)
    : sizes_(std::move(tensor_sizes)),
      coordinates_(std::accumulate(sizes_.begin(), sizes_.end(), int64_t{0})) {}

void NoiseSample::add_step(std::vector<float> noise, bool empty) {
  noise_.push_back(std::move(noise));
  empty_.push_back(empty);
}

double NoiseSample::dot(int64_t step, int64_t other, int64_t first, int64_t second,
                        int64_t count) const {
  const float* a = noise_[static_cast<size_t>(step)].data() + first;
  const float* b = noise_[static_cast<size_t>(other)].data() + second;
  // Eight partial sums, so that compilers use vectors: there are many pairs of steps.
  double part[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int64_t k = 0; k < 8; ++k)
      part[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  for (; i < count; ++i) part[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return std::accumulate(std::begin(part), std::end(part), 0.0);
}

bool NoiseSample::check_finite(CheckWriter& write) const {
  int64_t bad = 0;
  for (const auto& step : noise_)
    bad += std::count_if(step.begin(), step.end(), [](float v) { return !std::isfinite(v); });
  write.at_most("coordinates that are not finite", static_cast<double>(bad), 0);
  return bad == 0;
}

void NoiseSample::check_variance(CheckWriter& write) const {
  Moments all, of_empty;
  double worst_step = 1, worst_tensor = 1, step_ratio = 1, tensor_ratio = 1;
  std::vector<Moments> tensors(sizes_.size());
  for (size_t t = 0; t < noise_.size(); ++t) {
    Moments step;
    const float* values = noise_[t].data();
    step.add(values, coordinates_);
    for (size_t j = 0; j < sizes_.size(); values += sizes_[j], ++j)
      tensors[j].add(values, sizes_[j]);
    all.add(noise_[t].data(), coordinates_);
    if (empty_[t]) of_empty.add(noise_[t].data(), coordinates_);
    if (const double p = step.variance_p_value(); p < worst_step)
      worst_step = p, step_ratio = step.squares / step.n();
  }
  for (const Moments& tensor : tensors)
    if (const double p = tensor.variance_p_value(); p < worst_tensor)
      worst_tensor = p, tensor_ratio = tensor.squares / tensor.n();
  write.statistical("variance over (sigma C)^2", all.squares / all.n(), all.variance_p_value());
  write.statistical("variance of empty batches", of_empty.squares / std::max(1.0, of_empty.n()),
                    of_empty.count > 0 ? of_empty.variance_p_value() : 1);
  write.statistical("variance of the most unusual step", step_ratio, worst_step,
                    static_cast<double>(noise_.size()));
  write.statistical("variance of the most unusual tensor", tensor_ratio, worst_tensor,
                    static_cast<double>(tensors.size()));
}

void NoiseSample::check_shape(CheckWriter& write) const {
  Moments all;
  std::vector<float> values;
  for (const auto& step : noise_) {
    all.add(step.data(), coordinates_);
    values.insert(values.end(), step.begin(), step.end());
  }
  write.statistical("mean over its standard error", all.sum / std::sqrt(all.n()),
                    normal_p_value(all.sum / std::sqrt(all.n())));
  // Mean and variance of v^4 are 3 and 96. Ten times: its skewness, so far out.
  const double kurtosis = (all.fourths - 3 * all.n()) / std::sqrt(96 * all.n());
  write.statistical("fourth moment over (sigma C)^4", all.fourths / all.n(),
                    10 * normal_p_value(kurtosis));
  const auto far =
      std::count_if(values.begin(), values.end(), [](float v) { return std::abs(v) > 4; });
  const double tail = 2 * normal_cdf(-4);
  write.statistical("share beyond 4 sigma C, over the normal's",
                    static_cast<double>(far) / (all.n() * tail),
                    binomial_p_value(all.count, tail, far));
  const double distance = kolmogorov_distance_to_normal(values);
  write.statistical("Kolmogorov distance to the normal", distance,
                    kolmogorov_p_value(distance, all.count));
}

void NoiseSample::check_neighbours(CheckWriter& write) const {
  // Disjoint pairs only, so that the products are independent.
  double steps = 0, coordinates = 0, tensors = 0;
  int64_t step_pairs = 0, coordinate_pairs = 0, tensor_pairs = 0;
  for (int64_t t = 0; t + 1 < this->steps(); t += 2) {
    steps += dot(t, t + 1, 0, 0, coordinates_);
    step_pairs += coordinates_;
  }
  for (const auto& step : noise_) {
    for (int64_t i = 0; i + 1 < coordinates_; i += 2) {
      coordinates += static_cast<double>(step[static_cast<size_t>(i)]) *
                     static_cast<double>(step[static_cast<size_t>(i + 1)]);
      ++coordinate_pairs;
    }
  }
  int64_t first = 0;
  for (size_t j = 0; j + 1 < sizes_.size(); j += 2) {
    const int64_t common = std::min(sizes_[j], sizes_[j + 1]);
    for (int64_t t = 0; t < this->steps(); ++t)
      tensors += dot(t, t, first, first + sizes_[j], common);
    tensor_pairs += common * this->steps();
    first += sizes_[j] + sizes_[j + 1];
  }
  const auto correlation = [&](const char* name, double sum, int64_t pairs) {
    if (pairs > 0)
      write.statistical(name, sum / static_cast<double>(pairs), product_sum_p_value(sum, pairs));
  };
  correlation("correlation of neighbouring steps", steps, step_pairs);
  correlation("correlation of neighbouring coordinates", coordinates, coordinate_pairs);
  correlation("correlation of neighbouring tensors", tensors, tensor_pairs);
}

void NoiseSample::check_repetition(CheckWriter& write) const {
  double worst = 1, statistic = 0;
  for (int64_t t = 0; t < steps(); ++t) {
    for (int64_t s = 0; s < t; ++s) {
      const double sum = dot(t, s, 0, 0, coordinates_);
      const double p = product_sum_p_value(sum, coordinates_);
      if (p < worst) worst = p, statistic = sum / static_cast<double>(coordinates_);
    }
  }
  const double pairs = static_cast<double>(steps()) * static_cast<double>(steps() - 1) / 2;
  write.statistical("correlation of the most alike two steps", statistic, worst, pairs);
  if (first_session_ == 0 || first_session_ == steps()) return;
  double sum = 0;
  int64_t values = 0;
  for (int64_t t = first_session_; t < steps(); ++t) {
    sum += dot(t, t - first_session_, 0, 0, coordinates_);
    values += coordinates_;
  }
  write.statistical("correlation of steps taken again by a resumed session",
                    sum / static_cast<double>(values), product_sum_p_value(sum, values));
}

void NoiseSample::check(CheckWriter& write) const {
  if (!check_finite(write)) return;
  check_variance(write);
  check_shape(write);
  check_neighbours(write);
  check_repetition(write);
}

}  // namespace sfumato
