#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "sfumato/config/config.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class RecordStore;

/// The mechanism that a configuration and its store's unit of privacy describe, stages included; a
/// target epsilon is turned into noise multipliers here, of the stages first and of training with
/// what they leave. PrivacyError if it cannot be reached.
MechanismPlan make_plan(const Config& config, const RecordStore& store,
                        const MechanismPlan* frozen = nullptr);
/// The same without a store, for a unit of privacy that owns at most `records_per_unit` records.
/// `frozen`: the plan of a run that goes on, whose stages are counted as they were (plan_stages).
MechanismPlan make_plan(const Config& config, const std::string& unit, int64_t records_per_unit,
                        std::span<const Stage> table = stage_table(),
                        const MechanismPlan* frozen = nullptr);
/// The same for the unit that the configuration alone describes (data.users,
/// data.records_per_user): what `prepare` will write into the store, or has written, if it is the
/// same configuration's.
MechanismPlan make_plan(const Config& config);

/// The clipping of a plan: there is no other way to it, whatever computes gradients.
ClipOptions clip_options(const MechanismPlan& plan);

}  // namespace sfumato
