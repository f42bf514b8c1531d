#pragma once
#include <gmock/gmock.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "run/verified_run.h"
#include "sfumato/core/error.h"
#include "sfumato/report/privacy_card.h"
#include "support/error_message.h"

namespace sfumato::test {

/// Runs of two steps, and the same images prepared again: another store, another hash.
class StartingWeights : public Verification {
 protected:
  StartingWeights() { write_tiny_store(folder / "again", first_records(kTinyRecords)); }

  using Changes = std::vector<std::string>;
  Changes from(const std::filesystem::path& init, const Changes& more = {}) const {
    Changes changes = {"mechanism.steps=2", "model.config=", "model.init=" + init.string()};
    changes.insert(changes.end(), more.begin(), more.end());
    return changes;
  }
  std::string store(const char* name) const { return "data.store=" + (folder / name).string(); }
  std::string refusal(const Changes& changes) const {
    std::filesystem::remove_all(folder / "refused");
    return error_message<PrivacyError>([&] { start("refused", changes); });
  }
  nlohmann::ordered_json card_of(const std::string& run) const {
    return read_privacy_card(folder / run / "release/privacy_card.json");
  }
  /// Weights without a card, as they are downloaded.
  std::filesystem::path bare(const std::string& run, const std::string& name) const {
    std::filesystem::copy(folder / run / "release/unet", folder / name);
    return folder / name;
  }
  static void set_card(const std::filesystem::path& release,
                       const std::function<void(nlohmann::ordered_json&)>& edit) {
    nlohmann::ordered_json card =
        nlohmann::ordered_json::parse(read_file(release / "privacy_card.json"));
    edit(card);
    write_json_atomic(release / "privacy_card.json", card);
  }
};

}  // namespace sfumato::test
