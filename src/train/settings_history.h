#pragma once
#include <cstdint>

#include "sfumato/config/config.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {

/// Before the configuration of a run is replaced by that of its next session, which goes on after
/// `step`: adds {"time", "step", "changed": {key: {"from", "to"}}} to the run's settings history,
/// unless nothing differs, and says so. Values are YAML. What an older version called otherwise
/// counts as its default here.
void note_changed_settings(const RunDirectory& run, const Config& next, std::int64_t step);

}  // namespace sfumato
