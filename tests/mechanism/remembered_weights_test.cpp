// Weights that a run wrote, wherever they are copied to: checkpoints, copies in part, damaged
// witnesses, and cards that say less than their ledger.
#include "mechanism/starting_weights.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/run/checkpoint.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The same, with weights of checkpoints in their place.
class Checkpoints : public StartingWeights {
 protected:
  /// A folder as diffusers names it, of a checkpoint's weights that `put` brings to their place.
  fs::path model_of(const std::string& run, const std::string& file, const std::string& name,
                    const std::function<void(const fs::path&, const fs::path&)>& put) const {
    const fs::path model = folder / name;
    fs::create_directories(model);
    write_file_atomic(model / "config.json", tiny_config());
    put(checkpoint_path(run, 2) / file, model / "diffusion_pytorch_model.safetensors");
    return model;
  }
  /// The network's tensors of a checkpoint: an average has a count beside them.
  static void copied(const fs::path& from, const fs::path& to) {
    const SafetensorsFile original(from);
    NamedTensors weights;
    for (const std::string& name : original.names())
      if (name != "updates") weights.emplace_back(name, to_tensor(original.info(name)));
    write_tensor_file(to, weights);
  }
  /// As a release has it: the class table of the run is in it.
  std::string tiny_config() const { return read_file(folder / "shown/release/unet/config.json"); }
};

TEST_F(Checkpoints, AreKnownWhereverTheyLie) {
  start("shown", {"mechanism.steps=1", store("again")});
  start("first", {"mechanism.steps=2", "run.checkpoint_every=1"});
  start("open", {"privacy.enabled=false", "mechanism.steps=2", "run.checkpoint_every=1"});
  const auto linked = [](const fs::path& from, const fs::path& to) {
    fs::create_symlink(from, to);
  };
  int number = 0;
  for (const char* run : {"first", "open"}) {
    const std::string cost = run == std::string("first") ? "remembers" : "without privacy";
    for (const char* file : {"model.safetensors", "ema.safetensors"}) {
      const std::string name = "bare" + std::to_string(++number);
      EXPECT_THAT(refusal(from(model_of(run, file, name, copied))), HasSubstr(cost)) << run << file;
    }
    // A link leads into the run, on whatever store.
    EXPECT_THAT(
        refusal(from(model_of(run, "model.safetensors", std::string("link_to_") + run, linked),
                     {store("again")})),
        HasSubstr("private part of the run"))
        << run;
    // In place, and the folder itself linked.
    const fs::path place = checkpoint_path(run, 2);
    write_file_atomic(place / "config.json", tiny_config());
    fs::create_symlink("model.safetensors", place / "diffusion_pytorch_model.safetensors");
    fs::create_directory_symlink(place, folder / (std::string("way_to_") + run));
    for (const fs::path& init : {place, folder / (std::string("way_to_") + run)})
      EXPECT_THAT(refusal(from(init, {store("again")})), HasSubstr("private part of the run"));
    // With a card that would fit a release.
    fs::copy_file(folder / run / "release/privacy_card.json", place / "privacy_card.json");
    EXPECT_NE(refusal(from(place, {store("again"), "mechanism.declared=[\"0.25:1:2\"]"})), "");
  }
  // What is deep in a run is in it.
  const fs::path deep = folder / "first/some/where/deep";
  fs::create_directories(deep.parent_path());
  fs::copy(folder / "first/release/unet", deep);
  EXPECT_THAT(refusal(from(deep, {store("again")})), HasSubstr("lies in the run"));
}

TEST_F(Checkpoints, OfAnInterruptedRunAreKnownToo) {
  start("shown", {"mechanism.steps=1", store("again")});
  for (const char* privacy : {"privacy.enabled=true", "privacy.enabled=false"}) {
    const std::string run = std::string("stopped_") + (privacy[16] == 't' ? "private" : "open");
    set_stop_requested(false);
    EXPECT_THROW(
        {
          // Stops at the first boundary between steps.
          set_stop_requested(true);
          start(run, {privacy, "mechanism.steps=2"});
        },
        Interrupted);
    set_stop_requested(false);
    resume(run, {privacy, "mechanism.steps=2"});
    fs::remove_all(folder / run / "release");
    const fs::path model = model_of(run, "ema.safetensors", "copy_of_" + run, copied);
    EXPECT_THAT(refusal(from(model)), HasSubstr("remembers"));
  }
}

TEST_F(StartingWeights, CopiesInPartAreKnownToTheStore) {
  start("first", {"mechanism.steps=2"});
  const fs::path copy = bare("first", "bare");
  const fs::path file = copy / "diffusion_pytorch_model.safetensors";
  NamedTensors weights;
  const SafetensorsSet original(copy);
  for (const std::string& name : original.names())
    weights.emplace_back(name, to_tensor(original.info(name)));
  const auto refused = [&](const std::string& what,
                           const std::function<void(std::size_t, at::Tensor&)>& change) {
    NamedTensors changed = weights;
    for (std::size_t i = 0; i < changed.size(); ++i) {
      changed[i].second = changed[i].second.clone();
      change(i, changed[i].second);
    }
    fs::remove(file);
    write_tensor_file(file, changed);
    EXPECT_THAT(refusal(from(copy)), HasSubstr("remembers")) << what;
  };
  refused("mixed", [](std::size_t i, at::Tensor& t) { t = i % 2 == 0 ? t.to(at::kHalf) : t; });
  refused("twice",
          [](std::size_t, at::Tensor& t) { t = t.to(at::kHalf).to(at::kFloat).to(at::kBFloat16); });
  refused("an element", [](std::size_t i, at::Tensor& t) {
    if (i == 0) t.view({-1})[0] += 1;
  });
}

TEST_F(StartingWeights, ANoteThatCannotBeReadHidesNoOther) {
  start("first", {"mechanism.steps=2"});
  start("second", {"mechanism.steps=2"});
  const fs::path notes = folder / "store/uses/released_weights.jsonl";
  std::vector<std::string> lines = lines_of(notes);
  Json line = Json::parse(lines.front());
  line["plan"]["sampler"] = "of the future";
  for (std::string& each : lines)
    if (Json::parse(each)["run"] == line["run"]) {
      Json damaged = Json::parse(each);
      damaged["plan"] = line["plan"];
      each = damaged.dump();
    }
  write_lines(notes, lines);
  EXPECT_THAT(refusal(from(bare("second", "known"))), HasSubstr("0.25:1:2"));
  EXPECT_THAT(refusal(from(bare("first", "unclear"), {"mechanism.declared=[\"0.25:1:2\"]"})),
              AllOf(HasSubstr("remembers"), HasSubstr("not what they cost")));
  // And the next run's weights are noted.
  start("third", {"mechanism.steps=2"});
  EXPECT_THAT(refusal(from(bare("third", "later"))), HasSubstr("0.25:1:2"));
}

TEST_F(StartingWeights, WhatCannotBeRememberedIsNotWritten) {
  fs::create_directories(folder / "store/uses/released_weights.jsonl");
  EXPECT_THAT(error_message<DataError>([&] { start("first", {"mechanism.steps=2"}); }),
              HasSubstr("nothing is written"));
  EXPECT_FALSE(fs::exists(folder / "first/release"));
  EXPECT_FALSE(newest_checkpoint(folder / "first/private/checkpoints"));
}

TEST_F(StartingWeights, TheLedgerCountsAndNotTheCardBesideIt) {
  start("first", {"mechanism.steps=2"});
  const fs::path release = folder / "first/release";
  const auto count_nothing = [](Json& card) {
    card["stages"][0]["steps"] = card["stages"][0]["charged"] = 0;
  };
  set_card(release, count_nothing);
  EXPECT_THAT(refusal(from(release, {store("again")})),
              HasSubstr("counts no use of private images"));
  // With its ledger at hand, whatever the card says; without it, what is no card of a run.
  set_card(release,
           [](Json& card) { card["stages"][0]["steps"] = card["stages"][0]["charged"] = 1; });
  const Changes declared = from(release, {store("again"), "mechanism.declared=[\"0.25:1:1\"]"});
  EXPECT_NE(refusal(declared), "");
  start("second", {"mechanism.steps=2"});
  fs::copy(folder / "second/release", folder / "lent", fs::copy_options::recursive);
  const Changes lent = from(folder / "lent", {store("again"), "mechanism.declared=[\"0.25:1:2\"]"});
  set_card(folder / "lent", [](Json& card) { card["statement"] = "Nobody can be recognised."; });
  EXPECT_THAT(refusal(lent), HasSubstr("contradicts itself"));
}

TEST_F(StartingWeights, TheLedgerOfARunIsVerified) {
  start("first", {"mechanism.steps=2"});
  // The card is as it was, and the ledger beside it was cut.
  std::vector<std::string> lines = lines_of(folder / "first/ledger.jsonl");
  lines.erase(lines.begin() + 1);
  write_lines(folder / "first/ledger.jsonl", lines);
  EXPECT_THAT(refusal(from(folder / "first/release",
                           {store("again"), "mechanism.declared=[\"0.25:1:2\"]"})),
              HasSubstr("does not prove what is released"));
}

}  // namespace
}  // namespace sfumato
