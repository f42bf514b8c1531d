#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/models/unet2d.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/train/initial_weights.h"
#include "sfumato/train/optimizer.h"
#include "sfumato/train/run_directory.h"

namespace sfumato {

/// What a release is made from. Of the store only the keyed manifest hash and its public schema go
/// out.
struct ReleaseInputs {
  const Config& config;
  const MechanismPlan& plan;
  UNet2D& network;
  const std::vector<Parameter*>& trainable;
  const Ema& ema;
  const RecordStore& store;
  const RunDirectory& run;
  const FoundWeights& start;
  int64_t steps = 0;
  Ledger* ledger = nullptr;  ///< null for runs without privacy
};

/// release/: the averaged weights as a diffusers pipeline, the privacy card (JSON, Markdown),
/// README.md and report.html. Replaces an earlier release. The record store remembers the weights
/// before they are written, and the ledger notes their SHA-256 before the card claims anything of
/// them.
void write_release(const ReleaseInputs& inputs);

/// release/report.html: what `card` says, and the settings that may be seen.
std::string release_page(const nlohmann::ordered_json& card, const std::string& settings_yaml);

}  // namespace sfumato
