#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "sfumato/core/log.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/witness.h"
#include "sfumato/sweep/selection_runs.h"
#include "sfumato/sweep/sweep_state.h"
#include "sweep/sweep_support.h"

namespace sfumato::test {

/// A sweep that is a private selection, and ledgers as training writes them.
class Selections : public ::testing::Test {
 protected:
  Selections() {
    set_quiet(true);
    folder.write("base.yaml",
                 "data: {store: store, image_size: 4, channels: 1}\n"
                 "mechanism: {steps: 5, noise_multiplier: 2, delta: 1.0e-5}\n");
    write_file("3", "20");
    options.program = "sfumato";
    options.launch = {"./train"};
    folder.write_program(0, "0",
                         "mkdir -p $dir/release; echo '{}' >$dir/release/privacy_card.json");
  }
  void write_file(const std::string& mean, const std::string& agreed,
                  const std::string& score = "1") {
    folder.write("sweep.yaml",
                 "sweep:\n  name: s\n  base: base.yaml\n  purpose: private_selection\n"
                 "  vary: {diffusion.draws: [1, 2]}\n  score: [echo, '" +
                     score +
                     "']\n"
                     "  score_is_public: true\n"
                     "  selection: {mean_runs: " +
                     mean + ", agree_up_to: " + agreed + "}\n");
  }
  /// What training leaves of a run, with this score.
  void train(const SweepPlan& plan, const SweepRun& run, std::optional<double> score,
             double noise = 2, int steps = 5) {
    const std::filesystem::path place = places_of(plan, run).run;
    std::filesystem::create_directories(place / "private");
    const auto config = parse_config(run.settings, "run");
    config->run.sweep.set(binding_of(plan, run));
    write_file_atomic(place / "config.yaml", config->resolved_yaml());
    MechanismPlan mechanism;
    mechanism.sample_rate = config->mechanism.sample_rate();
    mechanism.noise_multiplier = noise;
    mechanism.steps = 5;
    mechanism.selection = Selection{0, 3};
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(place / "ledger.jsonl", mechanism.to_json(), 5, key);
    for (int step = 0; step < steps; ++step) (void)ledger.charge(step, key);
    mark_done(plan, run, score);
  }
  void note_witness(const SweepPlan& plan, const SweepRun& run) {
    const std::filesystem::path place = places_of(plan, run).run;
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::open(place / "ledger.jsonl");
    ledger.resume(key);
    WitnessKeeper("store").write(ledger, place, true);
  }
  SweepFolder folder;
  RunnerOptions options;
};

}  // namespace sfumato::test
