#include "train/training_state.h"

#include <utility>

#include "sfumato/generate/families.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/train/setup.h"

namespace sfumato {
namespace {

StepOptions options_of(const Config& config, const TrainRanks& ranks) {
  StepOptions options = step_options(config);
  options.ranks = ranks.communicator();
  return options;
}

}  // namespace

TrainingState::TrainingState(const Config& config, const MechanismPlan& plan, TrainRanks& ranks)
    : ranks_(ranks),
      generator_(make_generator(config, open_placement(config.performance))),
      gradients_(generator_->objective(), clip_options(plan), options_of(config, ranks)),
      optimizer_(gradients_.engine().trainable(), generator_->rate_scales(config),
                 optimizer_options(config), gradients_.engine().slices()) {
  std::string names;
  for (const auto& [name, tensor] : joined(generator_->state()))
    names += name + " " + c10::str(tensor.sizes()) + "\n";
  ranks_.require_same("the network", names, "give all processes the same model.*");
  share_generator();
}

NamedGroups TrainingState::complete() {
  if (Ema* average = generator_->average()) average->gather(slices());
  NamedGroups groups = generator_->state();
  groups.emplace_back(kOptimizerGroup, optimizer_.state());
  return groups;
}

void TrainingState::restore(const Checkpoint* checkpoint) {
  NamedGroups optimizer = {{kOptimizerGroup, optimizer_.state()}};
  ranks_.on_leader([&] {
    if (checkpoint == nullptr) return;
    NamedGroups groups;
    for (const TensorGroup& group : checkpoint->groups)
      if (group.name != kOptimizerGroup) groups.emplace_back(group.name, to_tensors(group));
    generator_->load_state(groups);
    copy_named_tensors(to_tensors(checkpoint->group(kOptimizerGroup)), optimizer[0].second,
                       "the optimizer's checkpoint");
  });
  share_generator();
  optimizer_.load_state(ranks_.from_leader(optimizer)[0].second);
}

void TrainingState::share_generator() {
  if (ranks_.alone()) return;
  const NamedGroups shared = ranks_.from_leader(generator_->state());
  if (!ranks_.leads()) generator_->load_state(shared);
}

}  // namespace sfumato
