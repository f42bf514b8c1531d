#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/generate/generator.h"
#include "train/step_report.h"

namespace sfumato {

/// Keeps what previews take to a share of the time since training began.
class PreviewBudget {
 public:
  explicit PreviewBudget(double share) : share_(share) {}
  /// Whether one that takes as long as the last is paid for after so many seconds of training. The
  /// first time nothing is known of what one takes, and this is true once anything is paid for.
  bool allows(double elapsed_s) const {
    return spent_s_ + expected_s_.value_or(0) < share_ * elapsed_s;
  }
  void expect(double seconds) { expected_s_ = seconds; }
  void spend(double seconds) { spent_s_ += seconds; }
  bool knows() const { return expected_s_.has_value(); }
  double expected_s() const { return expected_s_.value_or(0); }
  double spent_s() const { return spent_s_; }

 private:
  double share_, spent_s_ = 0;
  std::optional<double> expected_s_;
};

/// While it lives the network that draws has the weights that would be released: the average.
/// Afterwards it has its own again, bit for bit.
class ReleasedWeightsInPlace {
 public:
  explicit ReleasedWeightsInPlace(const Generator& generator);
  ~ReleasedWeightsInPlace();
  ReleasedWeightsInPlace(const ReleasedWeightsInPlace&) = delete;
  ReleasedWeightsInPlace& operator=(const ReleasedWeightsInPlace&) = delete;

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> own_;  ///< a weight and its own value
};

/// Pictures of a run while it trains: contact sheets of the same images, drawn from the average, as
/// step_000100.png and a page that reloads itself, in private/previews/, and in TensorBoard.
/// Post-processing of weights that the noise protects; no loss and no record has a say in them.
/// Rank 0's. What goes wrong with them is warned of and ends previews, never a run.
class Previews {
 public:
  /// All but `folder` are borrowed. Those of steps above `step` are of steps that were lost, and
  /// are removed.
  Previews(const Config& config, Generator& generator, const ImageShape& shape,
           std::filesystem::path folder, StepReport& report, std::int64_t step);

  /// Whether a preview is to be made after `step`: by the settings, alike on all ranks.
  static bool is_due(const Config& config, std::int64_t step);
  /// Whether the share of the time pays for one now; says so the first time that it does not.
  bool is_paid_for();
  /// Draws; the average must be whole. `epsilon` spent so far, empty without privacy.
  void draw(std::int64_t step, std::int64_t end, std::optional<double> epsilon);
  /// For the log: how many were drawn and what share of the time they took; empty if none was.
  std::string summary() const;

 private:
  double elapsed_s() const;
  void make_sampler();
  void draw_sheet(std::int64_t step, std::int64_t end, std::optional<double> epsilon);
  void write_page(std::int64_t step, std::int64_t end, std::optional<double> epsilon) const;

  const Config& config_;
  Generator& generator_;
  ImageShape shape_;
  std::filesystem::path folder_;
  StepReport& report_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  PreviewBudget budget_;
  std::unique_ptr<Config> as_drawn_;  ///< the configuration with fewer denoising steps
  std::unique_ptr<ImageSampler> sampler_;
  std::vector<std::vector<ImageId>> rows_;
  std::int64_t drawn_ = 0;
  bool off_ = false, said_ = false;
};

}  // namespace sfumato
