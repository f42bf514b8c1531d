#pragma once
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/generate/generator.h"
#include "sfumato/mechanism/initial_weights.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {

/// What a release is made from. Of the store only the keyed manifest hash and its public schema go
/// out.
struct ReleaseInputs {
  const Config& config;
  const MechanismPlan& plan;
  const Generator& generator;
  const RecordStore& store;
  const RunDirectory& run;
  const InitialWeights& start;
  /// Tells the record store of weights that are about to be written.
  std::function<void(const NamedTensors&)> remember;
  MechanismSession* session = nullptr;  ///< null for runs without privacy
};

/// What would be released of a run of a private selection, without card, where its score looks for
/// it and nobody else: selection_candidate(). The record store remembers the weights before.
void write_candidate(const ReleaseInputs& inputs);
/// Writes the generator below `folder`, which may hold an earlier release; what a ledger notes of
/// it.
ReleasedFiles save_release(const Generator& generator, const std::filesystem::path& folder,
                           const RecordStore& store, const Config& config);

/// release/: what the generator saves, its README.md included, the privacy card (JSON, Markdown)
/// and report.html. Replaces an earlier release. The record store remembers the weights before they
/// are written, and the ledger notes what they, the other files and the public facts hash to before
/// the card claims anything of them.
void write_release(const ReleaseInputs& inputs);

}  // namespace sfumato
