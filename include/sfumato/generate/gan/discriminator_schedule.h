#pragma once
#include <cstdint>

#include "sfumato/nn/named_tensors.h"

namespace sfumato {

struct GanSettings;

/// How many private steps of the discriminator come before each turn of the generator: a fixed
/// number, or one that grows where the discriminator finds too few fakes (Bie, Kamath, Zhang 2023,
/// section 4). It hears of fakes alone, so that the number is post-processing of released weights.
class DiscriminatorSchedule {
 public:
  struct Options {
    std::int64_t discriminator_steps = 1;  ///< where adaptive, those to begin with
    bool adaptive = true;
    double threshold = 0.6;       ///< raised where the average accuracy is at most this
    double average = 0.99;        ///< decay of the average, which begins with its first value
    std::int64_t patience = 200;  ///< steps of the generator between two raises, at least
  };
  explicit DiscriminatorSchedule(const Options& options);

  bool adaptive() const { return options_.adaptive; }
  std::int64_t discriminator_steps() const { return discriminator_steps_; }
  /// Average share of fakes that the discriminator finds; negative where nobody has looked.
  double accuracy() const { return accuracy_; }
  /// Steps of the generator since the run began.
  std::int64_t generator_steps() const { return generator_steps_; }

  void count_discriminator_step() { ++since_generator_; }
  /// Whether the generator is to step before the discriminator steps again.
  bool is_generators_turn() const { return since_generator_ >= discriminator_steps_; }
  /// Whether there were steps of the discriminator since the generator's last one.
  bool has_pending_steps() const { return since_generator_ > 0; }
  /// Share of public fakes that the discriminator found just before this step of the generator; not
  /// looked at unless adaptive.
  void count_generator_step(double accuracy_on_fakes);

  /// For checkpoints: scalars, copied.
  NamedTensors state() const;
  /// A number of steps that the settings fix anew stays as they say; one that grew is taken over.
  void load_state(const NamedTensors& state);

 private:
  Options options_;
  std::int64_t discriminator_steps_;
  std::int64_t since_generator_ = 0, generator_steps_ = 0, since_raise_ = 0;
  double accuracy_ = -1;  ///< negative: none yet
};

DiscriminatorSchedule::Options discriminator_schedule_options(const GanSettings& settings);

}  // namespace sfumato
