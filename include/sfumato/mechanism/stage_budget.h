#pragma once
#include <span>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// The stages of a configuration, those it declares last: `plan` has everything else but the noise
/// of training. A share s of target_epsilon becomes the noise at which the stage alone (made
/// `candidates` times) costs as much as the Gaussian mechanism with mu^2 = s mu_total^2, mu_total
/// being that of the whole target (gaussian_mu), or that of a run whose selection costs it: squares
/// of mu add up over composed Gaussian mechanisms (Dong, Roth, Su 2022), which makes them the
/// currency in which shares are counted. An epsilon becomes the noise at which one run's stage
/// alone costs it. UsageError: a share too small to buy anything, a declared use that cannot be
/// read. PrivacyError: an epsilon that no noise reaches, a stage that `table` does not have.
///
/// Under replace_one a stage of non-negative contributions that samples nothing is a
/// GaussianRelease of its own sensitivity, sqrt(2) clip norms, where a sampled Gaussian would count
/// 2; not so where `frozen`, the plan of a run that goes on, has it as a sampled Gaussian. What
/// stages measure is left out where the version of `frozen` has no place for it.
std::vector<StagePlan> plan_stages(const Config& config, const MechanismPlan& plan,
                                   std::span<const Stage> table = stage_table(),
                                   const MechanismPlan* frozen = nullptr);

}  // namespace sfumato
