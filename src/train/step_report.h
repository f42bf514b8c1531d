#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/grad/gradient_engine.h"
#include "sfumato/report/metrics_log.h"
#include "sfumato/report/progress.h"
#include "sfumato/report/tensorboard.h"

namespace sfumato {

/// What the batches of a step showed, added up.
struct BatchTotals {
  double loss = 0, norm = 0, counted = 0, clipped = 0, excluded = 0;
};
/// Of those of all ranks; collective.
BatchTotals totals_of(const std::vector<BatchStatistics>& batches, Communicator& ranks);

/// What one step has to say.
struct StepFacts {
  int64_t step = 0;  ///< steps done, this one included
  int64_t end = 0;   ///< steps done when the run ends
  double seconds = 0;
  double learning_rate = 0;
  std::optional<double> epsilon;  ///< spent, or an upper bound; empty without privacy
  std::string warning;            ///< of the generator, from what is public
  BatchTotals totals;
};

/// Private metrics and curves of a run's steps, and its line at the terminal, which shows nothing
/// that was measured on private data.
class StepReport {
 public:
  /// `first_step` of this session.
  StepReport(const std::filesystem::path& metrics, const std::filesystem::path& tensorboard,
             int64_t first_step);
  /// Every step: `images` of it count for the rate at the terminal.
  void took(double images, double seconds);
  /// The steps that are reported.
  void report(const StepFacts& facts);
  /// A PNG of this size, beside the curves.
  void preview(int64_t step, std::string_view png, int64_t height, int64_t width) {
    tensorboard_.add_image("preview", step, png, height, width);
  }
  /// Hands what was reported to the operating system.
  void flush() { tensorboard_.flush(); }
  void finish() { progress_.finish(); }

 private:
  MetricsLog metrics_;
  TensorBoardWriter tensorboard_;
  Progress progress_;
  RateMeter images_rate_, step_rate_;
};

}  // namespace sfumato
