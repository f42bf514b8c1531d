// Cards, pages and weights that say something else than the ledger proves, and names that must not
// leave with a release.
#include <set>

#include "run/verified_run.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/report/privacy_card.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

class FalseCard : public Verification {
 protected:
  /// Foreign weights of the same network, with a card, page and all that match them.
  void bring_foreign_weights(const fs::path& run) const {
    const fs::path file = run / "release/unet/diffusion_pytorch_model.safetensors";
    fs::copy_file(folder / "twin/release/unet/diffusion_pytorch_model.safetensors", file,
                  fs::copy_options::overwrite_existing);
    edit_card(run, [&](Json& card) { card["weights_sha256"] = sha256_hex(read_file(file)); });
    rewrite_page(run);
  }
  static void rewrite_page(const fs::path& run) {
    const Json card = Json::parse(read_file(run / "release/privacy_card.json"));
    write_file_atomic(run / "release/privacy_card.md", card_markdown(card));
    fs::remove(run / "release/report.html");
  }
};

TEST_F(FalseCard, ForeignWeightsWithAMatchingCardAreCaught) {
  start("run", kChanges);
  start("twin", kChanges);
  expect_caught("all there", "weights", "the ledger notes",
                [&](const fs::path& run) { bring_foreign_weights(run); });
  expect_caught("all there", "weights", "the average in the last checkpoint",
                [&](const fs::path& run) { bring_foreign_weights(run); });
  expect_caught("without checkpoints", "weights", "the ledger notes", [&](const fs::path& run) {
    bring_foreign_weights(run);
    fs::remove_all(run / "private");
  });
  // The note of the release is the last line: with it gone, the ledger says that it should be
  // there.
  expect_caught("note removed", "weights", "notes no release", [&](const fs::path& run) {
    bring_foreign_weights(run);
    fs::remove_all(run / "private");
    edit_ledger(run, [](auto& lines) { lines.pop_back(); });
    edit_card(run, [&](Json& card) {
      card["ledger_head_hash"] = sha256_hex(lines_of(run / "ledger.jsonl").back());
    });
    rewrite_page(run);
  });
  // Other programs prefer an index with shards, or read a pickle.
  for (const char* name : {"diffusion_pytorch_model.safetensors.index.json",
                           "diffusion_pytorch_model.bin", "foreign.safetensors"})
    expect_caught(name, "weights", name, [&](const fs::path& run) {
      fs::copy_file(folder / "twin/release/unet/diffusion_pytorch_model.safetensors",
                    run / "release/unet" / name);
    });
}

TEST_F(FalseCard, ACardOfTheFirstVersionIsRefused) {
  start("run", kChanges);
  expect_caught("version 1", "privacy card", "schema version 1", [](const fs::path& run) {
    edit_card(run, [](Json& card) {
      card["schema_version"] = 1;
      card["statement"] = "ε = 0.01";
      for (const char* later : {"candidates", "selection", "grid", "epsilon_at_delta", "recompute",
                                "largest_true_positive_rate", "sensitivity_margin"})
        card.erase(later);
    });
  });
}

TEST_F(FalseCard, EveryFieldIsComparedAndNoOtherIsAllowed) {
  start("run", kChanges);
  const Json card = Json::parse(read_file(folder / "run/release/privacy_card.json"));
  const std::set<std::string> facts = {"data_manifest_hash", "public_facts"};
  for (const auto& [key, value] : card.items()) {
    if (facts.contains(key)) continue;
    const auto change = [](const Json& old) {
      if (old.is_number()) return Json(old.get<double>() / 2);
      if (old.is_string() || old.is_null()) return Json("ε = 0.01");
      return Json::array({"ε = 0.01"});
    };
    // Not only the card: the page says the same, so that nothing else tells.
    const auto tamper = [&, name = key](const fs::path& run) {
      edit_card(run, [&](Json& edited) { edited[name] = change(edited[name]); });
      try {
        rewrite_page(run);
      } catch (const std::exception&) {
        // A card that cannot be shown is refused for that.
      }
    };
    tamper(copy("tampered"));
    EXPECT_EQ(verify("tampered").verdict(), "DAMAGED") << key;
  }
  expect_caught("a field of its own", "privacy card", "no privacy card says such a thing",
                [](const fs::path& run) {
                  edit_card(run, [](Json& edited) { edited["summary"] = "ε = 0.01"; });
                  rewrite_page(run);
                });
  expect_caught("code", "privacy card", "no session of the ledger ran it", [](const fs::path& run) {
    edit_card(run, [](Json& edited) { edited["code"]["version"] = "9: ε = 0.01"; });
    rewrite_page(run);
  });
}

TEST_F(FalseCard, TheReportSaysWhatTheCardSays) {
  start("run", kChanges);
  const auto edited = [&](const std::string& what, const std::string& from, const std::string& to,
                          const std::string& defect) {
    expect_caught(what, "privacy card", defect, [&](const fs::path& run) {
      const fs::path page = run / "release/report.html";
      std::string text = read_file(page);
      const std::size_t at = text.rfind(from);
      ASSERT_NE(at, std::string::npos) << from;
      write_file_atomic(page, text.replace(at, from.size(), to));
    });
  };
  const Json card = Json::parse(read_file(folder / "run/release/privacy_card.json"));
  const std::string epsilon = epsilon_text(card["epsilon"].get<double>());
  edited("row", "<td>" + epsilon + "</td>", "<td>0.01</td>", "does not say what the card");
  edited("headline", "ε = " + epsilon, "ε = 0.01", "does not say what the card");
  edited("footer", "<footer>", "<footer>ε = 0.01 ", "does not say what the card");
  edited("settings", "noise_multiplier: 1", "noise_multiplier: 9", "shows other settings");
  edited("comment", "noise_multiplier: 1", "noise_multiplier: 1  # ε = 0.01",
         "shows what are no settings");
  edited("no settings", "noise_multiplier: 1", "so: ε = 0.01", "shows what are no settings");
}

TEST_F(FalseCard, NoPrivateNameLeavesWithARelease) {
  fs::rename(folder / "store", folder / "secret_store");
  // Public weights in a folder whose name is nobody's business.
  write_tiny_store(folder / "other", first_records(30));
  start("open", {"privacy.enabled=false", "mechanism.steps=1",
                 "data.store=" + (folder / "other").string()});
  fs::copy(folder / "open/release/unet", folder / "secret_init");
  const auto settings =
      config("secret_run",
             {"model.config=", "data.source=/secret/source", "data.labels=/secret/labels",
              "data.users=/secret/users.csv", "data.store=" + (folder / "secret_store").string(),
              "model.init=" + (folder / "secret_init").string()});
  write_file_atomic(folder / "secret.yaml", settings->resolved_yaml());
  train(*load_config(folder / "secret.yaml", {}), /*resume=*/false);
  std::vector<fs::path> files = {folder / "secret_run/ledger.jsonl"};
  for (const auto& entry : fs::recursive_directory_iterator(folder / "secret_run/release"))
    if (entry.is_regular_file()) files.push_back(entry.path());
  ASSERT_GE(files.size(), 8u);
  for (const fs::path& file : files) {
    EXPECT_THAT(read_file(file), Not(HasSubstr("secret"))) << file;
    EXPECT_THAT(read_file(file), Not(HasSubstr(folder.path().string()))) << file;
  }
  EXPECT_THAT(read_file(folder / "secret_run/release/report.html"),
              HasSubstr("expected_batch_size: 10"));
}

}  // namespace
}  // namespace sfumato
