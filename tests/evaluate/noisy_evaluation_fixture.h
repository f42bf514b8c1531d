#pragma once
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "evaluate/evaluation_fixture.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/evaluate/noisy_evaluation.h"
#include "sfumato/run/run_verification.h"
#include "train/tiny_run.h"

namespace sfumato::test {

/// Runs, corpora that they drew, and requests for noisy numbers of their private images.
class NoisyEvaluationTest : public TinyRun {
 protected:
  /// Images as `sample` would write them, beside the card of the run's release.
  void draw_corpus(const std::string& name, const std::string& run, int images = 60) const {
    for (int i = 0; i < images; ++i)
      write_picture(folder / name / "images" / std::to_string(i % 2) / fmt::format("{:06}.png", i),
                    tiny_image(i + 1000));
    const std::string card = read_file(folder / run / "release/privacy_card.json");
    write_file_atomic(folder / name / "privacy_card.json", card);
    Json lineage = lineage_of({(images + 1) / 2, images / 2});
    lineage["classes"][0]["name"] = "across";
    lineage["classes"][1]["name"] = "down";
    lineage["privacy_card_sha256"] = sha256_hex(card);
    write_file_atomic(folder / name / "lineage.json", lineage.dump());
  }
  NoisyEvaluationRequest request(const std::string& run = "run",
                                 const std::string& corpus = "corpus",
                                 const std::string& reference = "store") const {
    NoisyEvaluationRequest out;
    out.run = folder / run;
    out.corpus.path = folder / corpus;
    out.corpus.option = "corpus";
    out.reference = folder / reference;
    out.options = quick({Metric::kAccuracy});
    return out;
  }
  template <class E = PrivacyError>
  std::string refusal(const NoisyEvaluationRequest& asked) const {
    return error_message<E>([&] { (void)evaluate_with_noise(asked); });
  }
  std::string refusal(const std::string& run, const std::string& corpus = "corpus",
                      const std::string& reference = "store") const {
    return refusal(request(run, corpus, reference));
  }
  std::string ledger_bytes(const std::string& run = "run") const {
    return read_file(folder / run / "ledger.jsonl");
  }
  std::vector<std::string> problems(const std::string& run = "run") const {
    RunVerificationOptions options;
    options.run = folder / run;
    return verify_run(options).problems();
  }
  Json card_of(const std::string& run = "run") const {
    return Json::parse(read_file(folder / run / "release/privacy_card.json"));
  }
  /// As an interruption leaves it that came after the charge.
  void charge_alone(const std::string& stage, const std::string& run = "run") const {
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::open(folder / run / "ledger.jsonl");
    ledger.resume(key);
    (void)ledger.charge_stage(stage, key);
  }

  /// A store of which `prepare` held images out: "store-holdout"; "others-holdout" is another's.
  void hold_images_out() const {
    fs::remove_all(folder / "store");
    write_prepared("store", first_records(kTinyRecords),
                   {{"holdout", {{"pair", "p"}, {"by", "name"}}}});
    std::vector<int> apart;
    for (int i = 0; i < 16; ++i) apart.push_back(100 + i);
    write_prepared("store-holdout", apart, {{"held_out_of", {{"pair", "p"}}}});
    write_prepared("others-holdout", apart, {{"held_out_of", {{"pair", "q"}}}});
  }
  void write_prepared(const std::string& name, const std::vector<int>& indices,
                      const nlohmann::json& preparation) const {
    RecordStoreWriter writer(folder / name, {8, 8, 1, 2, {"across", "down"}, false, 1});
    for (const int i : indices) writer.append(tiny_image(i), i % 2);
    writer.finish(preparation);
  }
};

}  // namespace sfumato::test
