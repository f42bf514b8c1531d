// Cards, pages and weights that say something else than the ledger proves, and names that must not
// leave with a release.
#include <algorithm>

#include "run/older_run.h"
#include "run/verified_run.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/run/card_plots.h"
#include "sfumato/run/selection_mark.h"

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
    rewrite_pages(run);
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
    rewrite_pages(run);
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
  for (const auto& [key, value] : card.items()) {
    const auto change = [](const Json& old) {
      if (old.is_number()) return Json(old.get<double>() / 2);
      if (old.is_string() || old.is_null()) return Json("ε = 0.01");
      return Json::array({"ε = 0.01"});
    };
    // Not only the card: the page says the same, so that nothing else tells.
    const auto tamper = [&, name = key](const fs::path& run) {
      edit_card(run, [&](Json& edited) { edited[name] = change(edited[name]); });
      try {
        rewrite_pages(run);
      } catch (const std::exception&) {
        // A card that cannot be shown is refused for that.
      }
    };
    tamper(copy("tampered"));
    EXPECT_EQ(verify("tampered").verdict(), "DAMAGED") << key;
  }
  expect_caught("a field of its own", "privacy card", "no privacy card says such a thing",
                [&](const fs::path& run) {
                  edit_card(run, [](Json& edited) { edited["summary"] = "ε = 0.01"; });
                  rewrite_pages(run);
                });
  expect_caught("code", "privacy card", "no session of the ledger ran it",
                [&](const fs::path& run) {
                  edit_card(run, [](Json& edited) { edited["code"]["version"] = "9: ε = 0.01"; });
                  rewrite_pages(run);
                });
}

TEST_F(FalseCard, ASelectionIsNeitherTakenOffNorMadeSmaller) {
  std::vector<std::string> changes = kChanges;
  changes.insert(changes.end(), {"mechanism.selection.mean_runs=10", "run.sweep=aa/3"});
  start("run", changes);
  EXPECT_FALSE(fs::exists(folder / "run/release/privacy_card.json")) << "nobody's winner yet";
  const std::string head = ledger("run").head_hash;
  write_selection_mark(folder / "run", {"aa", "aa/3", head, runs_sha256({head})});
  resume("run", changes);
  ASSERT_EQ(verify("run").verdict(), "sound");
  const Json card = Json::parse(read_file(folder / "run/release/privacy_card.json"));
  EXPECT_EQ(card["schema_version"], 3);
  const auto law = [](double runs) { return to_json(Selection{0, runs}); };
  EXPECT_EQ(card["selection_law"], law(10));
  const MechanismPlan plan = *verify("run").plan;
  EXPECT_EQ(plan.selection, (Selection{0, 10}));
  // With the epsilon that the smaller claim would have, and pages that say the same.
  const auto edited = [&](const std::string& what, const std::string& text,
                          const std::function<void(Json&)>& edit) {
    expect_caught(what, "privacy card", text, [&](const fs::path& run) {
      edit_card(run, edit);
      rewrite_pages(run);
    });
  };
  for (const double runs : {1.0, 9.0})
    edited("fewer", "selection_law is", [&](Json& said) {
      MechanismPlan less = plan;
      less.selection->mean_runs = runs;
      said["selection_law"] = law(runs);
      said["epsilon"] = less.epsilon_after(6);
    });
  edited("removed", "by the ledger {\"law\"", [&](Json& said) {
    MechanismPlan alone = plan;
    alone.selection.reset();
    said["schema_version"] = 2;
    said.erase("selection_law");
    said["epsilon"] = alone.epsilon_after(6);
  });
  edited("epsilon", "what the ledger charges costs",
         [](Json& said) { said["epsilon"] = said["epsilon"].get<double>() * (1 - 1e-5); });
  // A configuration that asks for none is not the run's.
  expect_caught("configuration", "configuration", "mechanism.selection", [](const fs::path& run) {
    std::string text = read_file(run / "config.yaml");
    const std::size_t at = text.find("mean_runs: 10");
    ASSERT_NE(at, std::string::npos);
    write_file_atomic(run / "config.yaml", text.replace(at, 13, "mean_runs: 0"));
  });
}

TEST_F(FalseCard, CountsAreIntegers) {
  start("run", kChanges);
  const auto edited = [&](const std::string& what, const std::string& text,
                          const std::function<void(Json&)>& edit) {
    expect_caught(what, "privacy card", text, [&](const fs::path& run) {
      edit_card(run, edit);
      if (what != "schema_version") rewrite_pages(run);
    });
  };
  edited("schema_version", "schema version 2.0", [](Json& card) { card["schema_version"] = 2.0; });
  edited("candidates", "candidates is 1.0", [](Json& card) { card["candidates"] = 1.0; });
  edited("steps", "steps is 6.0", [](Json& card) { card["stages"].back()["steps"] = 6.0; });
  edited("planned", "planned is 6.0", [](Json& card) { card["stages"].back()["planned"] = 6.0; });
}

TEST_F(FalseCard, WhatItSaysOfTheDataIsThatOfTheRelease) {
  start("run", kChanges);
  const auto edited = [&](const std::string& what, const std::string& text,
                          const std::function<void(Json&)>& edit) {
    expect_caught(what, "public facts", text, [&](const fs::path& run) {
      edit_card(run, edit);
      rewrite_pages(run);
      fs::remove(run / "config.yaml");  // no store is known
    });
  };
  const std::string noted = "are not those that the ledger notes of the release";
  edited("names", noted, [](Json& card) {
    card["public_facts"]["class_names"] = {"down", "across"};
  });
  edited("provenance", noted,
         [](Json& card) { card["public_facts"]["class_names_from"] = "numbers"; });
  edited("size", noted, [](Json& card) { card["public_facts"]["image_size"] = 16; });
  edited("store", noted, [](Json& card) { card["data_manifest_hash"] = std::string(64, '0'); });
  edited("of its own", "public_facts.epsilon is 0.01",
         [](Json& card) { card["public_facts"]["epsilon"] = 0.01; });
  edited("no integer", "public_facts.channels is 1.0",
         [](Json& card) { card["public_facts"]["channels"] = 1.0; });
  edited("none", "public_facts are missing", [](Json& card) { card["public_facts"] = Json(); });
  // A ledger of an older version does not note them: the record store tells, where it is at hand.
  make_older(folder / "run", folder / "store");
  EXPECT_EQ(check_of(verify("run"), "public facts").outcome, RunCheck::Outcome::kPassed);
  const auto swap_names = [&](const fs::path& run) {
    edit_card(run, [](Json& card) { card["public_facts"]["class_names"] = {"down", "across"}; });
    rewrite_pages(run);
  };
  expect_caught("names", "public facts", "are not those of the record store", swap_names);
  const fs::path alone = copy("alone");
  swap_names(alone);
  fs::remove(alone / "config.yaml");
  EXPECT_EQ(check_of(verify("alone"), "public facts").outcome, RunCheck::Outcome::kNotChecked);
  edit_card(alone, [](Json& card) { card["public_facts"]["epsilon"] = 0.01; });
  EXPECT_EQ(check_of(verify("alone"), "public facts").outcome, RunCheck::Outcome::kFailed);
}

TEST_F(FalseCard, NamesFromTheSourceAreAnExceptionToTheClaim) {
  RecordStoreWriter writer(folder / "found", {.height = 8,
                                              .width = 8,
                                              .channels = 1,
                                              .num_classes = 2,
                                              .class_names = {"across", "down"},
                                              .class_names_from = "source"});
  for (int i = 0; i < kTinyRecords; ++i) writer.append(tiny_image(i), i % 2);
  writer.finish({{"note", "made by a test"}});
  start("run", {"mechanism.steps=2", "data.store=" + (folder / "found").string()});
  const Json card = Json::parse(read_file(folder / "run/release/privacy_card.json"));
  EXPECT_EQ(card["not_covered"].back(), kNamesFromSource);
  EXPECT_EQ(std::ranges::count(card_notes(card), kNamesFromSource), 1);
  EXPECT_THAT(verify("run").problems(), IsEmpty());
  expect_caught("exception left out", "privacy card", "not_covered", [](const fs::path& run) {
    edit_card(run,
              [](Json& edited) { edited["not_covered"].erase(edited["not_covered"].size() - 1); });
  });
}

TEST_F(FalseCard, WhatIsMissingFromAReleaseIsAProblem) {
  start("run", kChanges);
  const auto removed = [&](const std::string& name, const std::string& check) {
    expect_caught(name, check, name,
                  [&](const fs::path& run) { fs::remove(run / "release" / name); });
  };
  removed("privacy_card.md", "privacy card");
  removed("report.html", "privacy card");
  removed("privacy_card.json", "privacy card");
  for (const char* name : {"README.md", "model_index.json", "unet/config.json"})
    removed(name, "release files");
}

TEST_F(FalseCard, AReleaseHoldsNothingElse) {
  start("run", kChanges);
  const auto added = [&](const std::string& name) {
    const std::string named = name.starts_with("unet_ema") ? "unet_ema" : name;
    expect_caught(name, "release files", named, [&](const fs::path& run) {
      fs::create_directories((run / "release" / name).parent_path());
      write_file_atomic(run / "release" / name, "foreign");
    });
  };
  for (const char* name :
       {"counts.json", "unet_ema/config.json", "scheduler/other.json", "SUMMARY.md", ".hidden"})
    added(name);
  for (const char* name :
       {"README.md", "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"})
    expect_caught(name, "release files", "as released", [&](const fs::path& run) {
      write_file_atomic(run / "release" / name, read_file(run / "release" / name) + "\n");
    });
  // A ledger of an older version does not note them.
  make_older(folder / "run", folder / "store");
  EXPECT_EQ(check_of(verify("run"), "release files").outcome, RunCheck::Outcome::kNotChecked);
  added("counts.json");
}

// A ledger is not sealed by a secret: whoever edits a run can write a line. What a release holds is
// the program's to say.
TEST_F(FalseCard, ALedgerCannotAllowOtherFiles) {
  start("run", kChanges);
  start("twin", kChanges);
  const auto allow = [&](const fs::path& run, const std::vector<std::string>& files) {
    edit_ledger(run, [&](std::vector<std::string>& lines) {
      Json line = Json::parse(lines.back());
      ASSERT_EQ(line["kind"], "release");
      for (const std::string& file : files)
        line["files"][file] = sha256_hex(read_file(run / "release" / file));
      lines.back() = sealed(line);
    });
    edit_card(run, [&](Json& card) {
      card["ledger_head_hash"] = sha256_hex(lines_of(run / "ledger.jsonl").back());
    });
    rewrite_pages(run);
  };
  expect_caught("counts", "release files", "counts.json", [&](const fs::path& run) {
    write_file_atomic(run / "release/counts.json", "17");
    allow(run, {"counts.json"});
  });
  // The weights that are looked at in another folder, foreign ones where diffusers looks.
  expect_caught("two networks", "release files", "2 networks", [&](const fs::path& run) {
    fs::copy(run / "release/unet", run / "release/a", fs::copy_options::recursive);
    fs::copy_file(folder / "twin/release/unet/diffusion_pytorch_model.safetensors",
                  run / "release/unet/diffusion_pytorch_model.safetensors",
                  fs::copy_options::overwrite_existing);
    allow(run, {"a/config.json", "unet/diffusion_pytorch_model.safetensors"});
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
  edited("row", "ε</th><td>" + epsilon, "ε</th><td>0.01", "does not say what the card");
  edited("headline", "with ε = " + epsilon, "with ε = 0.01", "does not say what the card");
  edited("footer", "<footer>", "<footer>ε = 0.01 ", "does not say what the card");
  edited("settings", "noise_multiplier: 1", "noise_multiplier: 9", "shows other settings");
  edited("comment", "noise_multiplier: 1", "noise_multiplier: 1  # ε = 0.01",
         "shows what are no settings");
  edited("no settings", "noise_multiplier: 1", "so: ε = 0.01", "shows what are no settings");
  edited("plots", "</td></tr>\n</tbody>\n</table>\n</details>",
         "9</td></tr>\n</tbody>\n</table>\n</details>", "shows plots that do not say");
  edited("smaller", "<td>" + epsilon + "</td></tr>", "<td>0.01</td></tr>", "shows ε = '0.01' at");
}

// Versions before had no plots on the page. What it lacks is no false claim.
TEST_F(FalseCard, AReportWithoutPlotsIsAnOlderOne) {
  start("run", kChanges);
  const fs::path page = folder / "run/release/report.html";
  std::string text = read_file(page);
  const std::string plots = card_plots_in(text);
  ASSERT_FALSE(plots.empty());
  write_file_atomic(page, text.erase(text.find(plots), plots.size()));
  EXPECT_THAT(verify("run").problems(), IsEmpty());
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
