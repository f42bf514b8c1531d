#include "sfumato/generate/gan/discriminator_schedule.h"

#include <ATen/ops/scalar_tensor.h>

#include <algorithm>

#include "sfumato/config/sections.h"

namespace sfumato {
namespace {

constexpr std::int64_t kNumbers[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000};

}  // namespace

DiscriminatorSchedule::DiscriminatorSchedule(const Options& options)
    : options_(options), discriminator_steps_(options.discriminator_steps) {}

void DiscriminatorSchedule::count_generator_step(double accuracy_on_fakes) {
  since_generator_ = 0;
  ++generator_steps_;
  ++since_raise_;
  if (!options_.adaptive) return;
  accuracy_ = accuracy_ < 0
                  ? accuracy_on_fakes
                  : options_.average * accuracy_ + (1 - options_.average) * accuracy_on_fakes;
  if (since_raise_ < options_.patience || accuracy_ > options_.threshold) return;
  const auto* next = std::ranges::upper_bound(kNumbers, discriminator_steps_);
  if (next == std::end(kNumbers)) return;
  discriminator_steps_ = *next;
  since_raise_ = 0;
}

NamedTensors DiscriminatorSchedule::state() const {
  const auto count = [](std::int64_t value) { return at::scalar_tensor(value, at::kLong); };
  return {{"discriminator_steps", count(discriminator_steps_)},
          {"since_generator", count(since_generator_)},
          {"generator_steps", count(generator_steps_)},
          {"since_raise", count(since_raise_)},
          {"accuracy_on_fakes", at::scalar_tensor(accuracy_, at::kDouble)}};
}

void DiscriminatorSchedule::load_state(const NamedTensors& state) {
  const NamedTensors mine = this->state();
  copy_named_tensors(state, mine, "the schedule's checkpoint");
  const auto count = [&](std::size_t i) { return mine[i].second.item<std::int64_t>(); };
  if (options_.adaptive) discriminator_steps_ = std::max(options_.discriminator_steps, count(0));
  since_generator_ = count(1);
  generator_steps_ = count(2);
  since_raise_ = count(3);
  accuracy_ = mine[4].second.item<double>();
}

DiscriminatorSchedule::Options discriminator_schedule_options(const GanSettings& settings) {
  return {.discriminator_steps = settings.discriminator_steps(),
          .adaptive = settings.adaptive(),
          .threshold = settings.adaptive_threshold(),
          .average = settings.adaptive_average(),
          .patience = settings.adaptive_patience()};
}

}  // namespace sfumato
