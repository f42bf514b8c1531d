#include "train/release.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "run/release_card.h"
#include "run/release_check.h"
#include "run/run_card.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/selection_mark.h"
#include "sfumato/run/weights_hash.h"
#include "sfumato/train/batch_loader.h"

namespace sfumato {
namespace {

/// What the ledger notes of the release, whose files are written.
ReleasedFiles released_files(const std::filesystem::path& release, const SavedGenerator& saved,
                             const std::string& weights_hash, const RecordStore& store) {
  PrivacyCard facts;
  describe_data(store, facts);
  ReleasedFiles released{
      weights_hash, card_facts_sha256(to_json(facts)), {}, saved.by_discriminator};
  for (const std::string& file : saved.files)
    released.files[file] = sha256_hex(read_file(release / file));
  // Verification must find what was saved.
  const std::vector<std::string> defects = layout_defects(released.files);
  if (!defects.empty() || weights_folder(released.files) != saved.folder)
    throw std::logic_error(
        fmt::format("a release in '{}': {}", saved.folder, fmt::join(defects, "; ")));
  return released;
}

/// What killed writers left would look like a part of the release.
void remove_temporaries(const std::filesystem::path& release) {
  std::error_code ignored;
  std::vector<std::filesystem::path> left;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           release, std::filesystem::directory_options::skip_permission_denied, ignored)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file(ignored) && name.starts_with(".") && name.ends_with(".tmp"))
      left.push_back(entry.path());
  }
  for (const std::filesystem::path& file : left) std::filesystem::remove(file, ignored);
}

}  // namespace

void write_candidate(const ReleaseInputs& inputs) {
  const std::filesystem::path folder = selection_candidate(inputs.run.path());
  inputs.remember(inputs.generator.released_weights());
  make_folder(folder, 0700);
  inputs.generator.save(folder, image_shape(inputs.store), inputs.config);
}

ReleasedFiles save_release(const Generator& generator, const std::filesystem::path& folder,
                           const RecordStore& store, const Config& config) {
  remove_temporaries(folder);
  const SavedGenerator saved = generator.save(folder, image_shape(store), config);
  return released_files(folder, saved, weights_sha256(folder / saved.folder), store);
}

void write_release(const ReleaseInputs& inputs) {
  const std::filesystem::path folder = inputs.run.release();
  // First: what has left is never unknown to the store.
  inputs.remember(inputs.generator.released_weights());
  const ReleasedFiles released =
      save_release(inputs.generator, folder, inputs.store, inputs.config);
  if (inputs.session != nullptr) inputs.session->record_release(released);
  // A ledger of an older version does not say what the run started from, whatever is there now.
  const std::optional<InitialWeights> start =
      inputs.session ? inputs.session->ledger().initial_weights() : inputs.start;
  PrivacyCard card = inputs.session ? card_of_ledger(inputs.plan, inputs.session->ledger())
                                    : plain_card(inputs.plan);
  write_card(folder, std::move(card), released, inputs.store, start, inputs.config);
}

}  // namespace sfumato
