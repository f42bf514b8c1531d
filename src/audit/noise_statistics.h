#pragma once
#include <cstdint>
#include <vector>

#include "audit/check_writer.h"

namespace sfumato {

/// What is left of released gradients once the known sum is taken off, in units of the claimed
/// noise: independent standard normals if the mechanism is what it claims. Steps by coordinates.
class NoiseSample {
 public:
  /// `tensor_sizes`: coordinates of each tensor, in their order in a step.
  explicit NoiseSample(std::vector<int64_t> tensor_sizes);
  /// `empty`: the step's batch held nobody.
  void add_step(std::vector<float> noise, bool empty);
  /// The steps from now on belong to a resumed session, which takes the same steps again.
  void start_second_session() { first_session_ = steps(); }
  int64_t steps() const { return static_cast<int64_t>(noise_.size()); }
  int64_t coordinates() const { return coordinates_; }

  void check(CheckWriter& write) const;

 private:
  bool check_finite(CheckWriter& write) const;
  void check_variance(CheckWriter& write) const;
  void check_shape(CheckWriter& write) const;
  void check_neighbours(CheckWriter& write) const;
  void check_repetition(CheckWriter& write) const;
  double dot(int64_t step, int64_t other, int64_t first, int64_t second, int64_t count) const;

  std::vector<int64_t> sizes_;
  int64_t coordinates_ = 0;
  std::vector<std::vector<float>> noise_;
  std::vector<bool> empty_;
  int64_t first_session_ = 0;
};

}  // namespace sfumato
