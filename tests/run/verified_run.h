#pragma once
#include <gmock/gmock.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "sfumato/config/public_settings.h"
#include "sfumato/io/json_file.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/run_verification.h"
#include "src/run/release_page.h"
#include "train/tiny_run.h"

namespace sfumato::test {

/// A run with two uses of the data besides training, one of them its own, and a twin of it.
class Verification : public TinyRun {
 protected:
  const std::vector<std::string> kChanges = {
      "mechanism.declared=[\"gaussian:1:50\"]",
      "mechanism.stages.label_histogram.noise_multiplier=50"};

  RunVerification verify(const std::string& run) const {
    return verify_run({folder / run, {}, {}, false});
  }
  static const RunCheck& check_of(const RunVerification& run, const std::string& name) {
    for (const RunCheck& check : run.checks)
      if (check.name == name) return check;
    ADD_FAILURE() << "no check is called " << name;
    return run.checks.front();
  }
  /// A copy of "run" with everything in it, the witness in the store being its own.
  std::filesystem::path copy(const std::string& name) const {
    std::filesystem::remove_all(folder / name);
    std::filesystem::copy(folder / "run", folder / name, std::filesystem::copy_options::recursive);
    return folder / name;
  }
  /// `tamper` must be noticed by `check`, in a line that holds `text` and names the file.
  void expect_caught(const std::string& what, const std::string& check, const std::string& text,
                     const std::function<void(const std::filesystem::path&)>& tamper) {
    tamper(copy("tampered"));
    const RunVerification found = verify("tampered");
    EXPECT_EQ(found.verdict(), "DAMAGED") << what;
    const RunCheck& failed = check_of(found, check);
    EXPECT_EQ(failed.outcome, RunCheck::Outcome::kFailed) << what;
    EXPECT_THAT(failed.problems, testing::Contains(testing::AllOf(testing::HasSubstr(text),
                                                                  testing::HasSubstr("tampered"))))
        << what;
  }
  static void edit_card(const std::filesystem::path& run,
                        const std::function<void(nlohmann::ordered_json&)>& edit) {
    nlohmann::ordered_json card =
        nlohmann::ordered_json::parse(read_file(run / "release/privacy_card.json"));
    edit(card);
    write_json_atomic(run / "release/privacy_card.json", card);
  }
  /// Makes the pages say what the card says, as whoever edits a card would.
  void rewrite_pages(const std::filesystem::path& run) const {
    const auto card = nlohmann::ordered_json::parse(read_file(run / "release/privacy_card.json"));
    write_file_atomic(run / "release/privacy_card.md", card_markdown(card));
    write_file_atomic(run / "release/report.html",
                      release_page(card, public_settings_yaml(*config("run", kChanges))));
  }
  static void edit_ledger(const std::filesystem::path& run,
                          const std::function<void(std::vector<std::string>&)>& edit) {
    std::vector<std::string> lines = lines_of(run / "ledger.jsonl");
    edit(lines);
    write_lines(run / "ledger.jsonl", lines);
  }
  static void replace_file(const std::filesystem::path& from, const std::filesystem::path& to) {
    std::filesystem::copy(from, to,
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::overwrite_existing);
  }
  /// Cuts the ledger after the mark of the checkpoint of `step`.
  static void cut_after_checkpoint(const std::filesystem::path& run, int step) {
    edit_ledger(run, [&](std::vector<std::string>& lines) {
      const auto is_mark = [&](const std::string& line) {
        const auto json = nlohmann::json::parse(line);
        return json["kind"] == "checkpoint" && json["step"] == step;
      };
      while (!is_mark(lines.back())) lines.pop_back();
    });
  }
  /// The whole run as it was when the checkpoint of `step` was saved.
  std::filesystem::path older_copy(const std::string& name, int step) const {
    const std::filesystem::path run = copy(name);
    for (const char* last : {"unet", "privacy_card.json"})
      std::filesystem::remove_all(run / "release" / last);
    for (int later = step + 1; later <= 6; ++later)
      std::filesystem::remove_all(checkpoint_path(name, later));
    cut_after_checkpoint(run, step);
    return run;
  }
};

}  // namespace sfumato::test
