#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sfumato/core/enum_names.h"

namespace sfumato {

/// Scores of an image under what was trained; a lower one speaks for membership. Of a diffusion
/// network, with e(x, t) the predicted noise and abar the schedule:
enum class MembershipScore {
  kLoss,   ///< |eps - e(x_t, t)|_2, the mean over fixed noises eps
  kSimA,   ///< |e(x_0, t)|_4^4: one query without noise (Rao et al. 2025)
  kPia,    ///< |e_0 - e(sqrt(abar_t) x_0 + sqrt(1 - abar_t) e_0, t)|_4^4 with e_0 = e(x_0, 0)
           ///< (Kong et al. 2024)
  kSecMi,  ///< |x - back(forth(x))|_2^2 of a deterministic DDIM step at the end of an inversion
           ///< (Duan et al. 2023)
  kDiscriminator  ///< -D(x), of the discriminator that a generator learned from: one query
};
template <>
struct EnumNames<MembershipScore> {
  static constexpr std::string_view kWhat = "score";
  static constexpr EnumName<MembershipScore> kTable[] = {
      {MembershipScore::kLoss, "loss"},
      {MembershipScore::kSimA, "sima"},
      {MembershipScore::kPia, "pia"},
      {MembershipScore::kSecMi, "secmi"},
      {MembershipScore::kDiscriminator, "discriminator"}};
};

struct MembershipOptions {
  std::vector<MembershipScore> scores = {};  ///< empty: all that there are of the generator
  /// Candidates for loss, SimA and PIA; empty: 1, 5, 10, 20, 30, 50 and 70 % of T.
  std::vector<int64_t> timesteps = {};
  int64_t draws = 2;  ///< noises of the loss at each timestep, the same for every image
  uint64_t seed = 0;
};

/// A score with all that it depends on.
struct ScoreColumn {
  MembershipScore score = MembershipScore::kLoss;
  int64_t timestep = 0;  ///< -1: the mean over all candidates (loss); or there are none
  std::string name() const;
  friend bool operator==(const ScoreColumn&, const ScoreColumn&) = default;
};

/// The scores of one generator.
class MembershipScorer {
 public:
  virtual ~MembershipScorer() = default;

  const std::vector<ScoreColumn>& columns() const { return columns_; }
  /// How often a network is asked for each image.
  virtual int64_t queries() const = 0;
  /// x0: float32 [N, C, H, W] in [-1, 1]; labels int64 [N], undefined for a network without
  /// classes. Returns float64 [N, columns] on the CPU. An image's scores do not depend on its batch
  /// beyond rounding. DataError if the network returns a value that is not finite.
  virtual at::Tensor score(const at::Tensor& x0, const at::Tensor& labels) const = 0;

 protected:
  std::vector<ScoreColumn> columns_;
};

}  // namespace sfumato
