// What a run starts from: public, paid for, or refused; and bound to its ledger.
#include "sfumato/mechanism/initial_weights.h"

#include "mechanism/starting_weights.h"
#include "run/older_run.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/mechanism/declared_uses.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/report/privacy_card.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

TEST_F(StartingWeights, ThoseOfAnEarlierPrivateRunAreNeverPublicAndCountAgain) {
  start("first", {"mechanism.steps=2"});
  const fs::path init = folder / "first/release";
  for (const char* name : {"store", "again"}) {
    EXPECT_THAT(
        refusal(from(init, {store(name)})),
        AllOf(HasSubstr("earlier private run"), HasSubstr("mechanism.declared=[\"0.25:1:2\"]")))
        << name;
    for (const char* too_little : {"0.25:1:1", "0.2:1:2", "0.25:1.1:2", "approximate:0.1:1e-5"})
      EXPECT_THAT(refusal(from(init, {store(name),
                                      std::string("mechanism.declared=[\"") + too_little + "\"]"})),
                  HasSubstr("earlier private run"))
          << too_little;
  }
  // By its card alone: a copy, and a store that never saw it.
  fs::copy(init, folder / "lent", fs::copy_options::recursive);
  EXPECT_THAT(refusal(from(folder / "lent", {store("again")})), HasSubstr("earlier private run"));
  const TrainResult result =
      start("second", from(init, {store("again"), "mechanism.declared=[\"0.25:1:2\"]"}));
  const PrivacyEvent event = Phase{0.25, 1, 2, 1};
  const PrivacyEvent both[] = {event, event};
  const double twice = account_epsilon(Accountant::kPld, both, 1e-3, Adjacency::kZeroOut).epsilon;
  EXPECT_NEAR(result.epsilon, twice, 1e-9);
  const Json card = card_of("second");
  EXPECT_TRUE(card["public_data"].empty());
  EXPECT_EQ(card["initial_weights"]["origin"], "private");
  EXPECT_EQ(card["initial_weights"]["sha256"], card_of("first")["weights_sha256"]);
  EXPECT_THAT(card_markdown(card), HasSubstr("weights of an earlier private run"));
  EXPECT_THAT(verify("second").problems(), IsEmpty());
  // A third one owes what both have spent.
  EXPECT_THAT(refusal(from(folder / "second/release", {"mechanism.declared=[\"0.25:1:2\"]"})),
              HasSubstr("mechanism.declared=[\"0.25:1:2\",\"0.25:1:2\"]"));
}

TEST_F(StartingWeights, SelectionAndStagesOfTheEarlierRunCountToo) {
  start("first", {"mechanism.steps=2", "mechanism.candidates=3",
                  "mechanism.stages.label_histogram.noise_multiplier=50",
                  "mechanism.declared=[\"gaussian:1:60\"]"});
  EXPECT_THAT(refusal(from(folder / "first/release", {store("again")})),
              HasSubstr("mechanism.declared=[\"1:50:3\",\"gaussian:1:60:1\",\"0.25:1:6\"]"));
}

TEST_F(StartingWeights, AnotherUnitOrAdjacencyCannotBeAddedUp) {
  start("first", {"mechanism.steps=2", "mechanism.adjacency=add_remove"});
  EXPECT_THAT(refusal(from(folder / "first/release", {"mechanism.declared=[\"0.25:1:2\"]"})),
              HasSubstr("under add_remove adjacency"));
  set_card(folder / "first/release", [](Json& card) {
    card["adjacency"] = "zero_out";
    card["unit"] = "one user, at most 3 images";
  });
  EXPECT_THAT(refusal(from(folder / "first/release",
                           {store("again"), "mechanism.declared=[\"0.25:1:2\"]"})),
              HasSubstr("one user, at most 3 images"));
}

TEST_F(StartingWeights, CopiesWithoutTheirCardAreKnownToTheStore) {
  start("first", {"mechanism.steps=2"});
  const fs::path copy = bare("first", "bare");
  EXPECT_THAT(refusal(from(copy)), AllOf(HasSubstr("remembers"), HasSubstr("0.25:1:2")));
  // In half precision, in shards, with other metadata and names of before 2023.
  const SafetensorsSet original(copy);
  NamedTensors parts[2];
  nlohmann::json map;
  for (std::size_t i = 0; i < original.names().size(); ++i) {
    std::string name = original.names()[i];
    const at::Tensor value = to_tensor(original.info(name)).to(at::kHalf);
    if (const auto at = name.find("attentions.0.to_q"); at != name.npos)
      name.replace(at, 17, "attentions.0.query");
    parts[i % 2].emplace_back(name, value);
    map[name] = i % 2 == 0 ? "a.safetensors" : "b.safetensors";
  }
  fs::remove(copy / "diffusion_pytorch_model.safetensors");
  write_tensor_file(copy / "a.safetensors", parts[0]);
  write_tensor_file(copy / "b.safetensors", parts[1]);
  write_file_atomic(copy / "diffusion_pytorch_model.safetensors.index.json",
                    nlohmann::json{{"weight_map", map}}.dump());
  EXPECT_THAT(refusal(from(copy)), HasSubstr("remembers"));
  EXPECT_NO_THROW(start("paid", from(copy, {"mechanism.declared=[\"0.25:1:2\"]"})));
  EXPECT_EQ(card_of("paid")["initial_weights"]["origin"], "private");
  // The run's own folder without its card.
  fs::remove(folder / "first/release/privacy_card.json");
  EXPECT_THAT(refusal(from(folder / "first/release", {store("again")})),
              HasSubstr("no privacy card says what it costs"));
  // Links lead to where the card is.
  start("other", {"mechanism.steps=2"});
  fs::create_directories(folder / "links");
  for (const auto& entry : fs::directory_iterator(folder / "other/release/unet"))
    fs::create_symlink(entry.path(), folder / "links" / entry.path().filename());
  EXPECT_THAT(refusal(from(folder / "links", {store("again")})), HasSubstr("earlier private run"));
}

TEST_F(StartingWeights, WithoutPrivacyTheyAreRefusedOrTheCardSaysOnWhoseWord) {
  start("open", {"privacy.enabled=false", "mechanism.steps=2"});
  const fs::path init = folder / "open/release";
  EXPECT_THAT(refusal(from(init, {"model.init_is_public=true"})),
              HasSubstr("without privacy on this very record store"));
  EXPECT_THAT(refusal(from(init, {store("again")})), HasSubstr("model.init_is_public=true"));
  // The store knows its copy, whatever is said of it.
  EXPECT_THAT(refusal(from(bare("open", "copy"), {"model.init_is_public=true"})),
              HasSubstr("trained on it without privacy"));
  start("stated", from(init, {store("again"), "model.init_is_public=true"}));
  const Json card = card_of("stated");
  EXPECT_EQ(card["initial_weights"]["origin"], "not_private");
  EXPECT_THAT(card_markdown(card), AllOf(HasSubstr("trained without privacy"),
                                         HasSubstr("on the word of whoever started the run")));
  EXPECT_THAT(verify("stated").problems(), IsEmpty());
  // The word is passed on.
  start("later",
        from(folder / "stated/release", {store("again"), "mechanism.declared=[\"0.25:1:2\"]"}));
  EXPECT_EQ(card_of("later")["initial_weights"]["on_word"], true);
}

TEST_F(StartingWeights, ACardThatIsVoidOrOfOtherWeightsIsRefused) {
  start("first", {"mechanism.steps=2"});
  const fs::path release = folder / "first/release";
  const Changes declared = from(release, {store("again"), "mechanism.declared=[\"0.25:1:2\"]"});
  set_card(release, [](Json& card) { card["weights_sha256"] = std::string(64, 'a'); });
  EXPECT_THAT(refusal(declared), HasSubstr("is not the card of the weights"));
  set_card(release, [](Json& card) { card.erase("weights_sha256"); });
  EXPECT_THAT(refusal(declared), HasSubstr("is not the card of the weights"));
  start("second", {"mechanism.steps=2"});
  set_card(folder / "second/release",
           [](Json& card) { card = voided(card, "a reason to doubt it"); });
  EXPECT_THAT(refusal(from(folder / "second/release", {store("again")})), HasSubstr("is VOID"));
}

TEST_F(StartingWeights, TheLedgerKnowsThemAndAResumeNeedsTheSame) {
  start("open", {"privacy.enabled=false", "mechanism.steps=2", store("again")});
  start("more", {"privacy.enabled=false", "mechanism.steps=3", store("again")});
  const fs::path a = bare("open", "a"), b = bare("more", "b");
  start("run", from(a));
  const Json first = Json::parse(lines_of(folder / "run/ledger.jsonl").front());
  EXPECT_EQ(first["initial_weights"]["sha256"],
            sha256_hex(read_file(a / "diffusion_pytorch_model.safetensors")));
  EXPECT_EQ(first["initial_weights"]["origin"], "public");
  EXPECT_THAT(verify("run").problems(), IsEmpty());
  EXPECT_EQ(card_of("run")["public_data"].size(), 1u);
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("run", from(b)); }),
              HasSubstr("started from other weights than model.init names now"));
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("run", {"mechanism.steps=2"}); }),
              HasSubstr("started from other weights than model.init names now"));
  EXPECT_EQ(resume("run", from(a)).charged, 2);
  // Verifying sees another folder, another configuration, and other weights in the same folder.
  expect_caught("another init", "initial weights", "the SHA-256 of the weights is",
                [&](const fs::path& run) {
                  write_file_atomic(run / "config.yaml", config("run", from(b))->resolved_yaml());
                });
  expect_caught("no init", "initial weights", "model.init is ''", [&](const fs::path& run) {
    write_file_atomic(run / "config.yaml", config("run", {"mechanism.steps=2"})->resolved_yaml());
  });
  fs::copy(b, a, fs::copy_options::overwrite_existing | fs::copy_options::recursive);
  EXPECT_EQ(check_of(verify("run"), "initial weights").outcome, RunCheck::Outcome::kFailed);
}

TEST_F(StartingWeights, ALedgerOfAnOlderVersionIsReadAndItsCardSaysWhatItLacks) {
  start("run", kChanges);
  make_older(folder / "run", folder / "store");
  RunVerification found = verify("run");
  EXPECT_THAT(found.problems(), IsEmpty());
  EXPECT_EQ(check_of(found, "initial weights").outcome, RunCheck::Outcome::kNotChecked);
  EXPECT_EQ(check_of(found, "weights").outcome, RunCheck::Outcome::kPassed) << "the checkpoint";
  // Nothing but the card speaks for the weights of such a run once its checkpoints are not there.
  const fs::path shared = copy("shared");
  fs::remove_all(shared / "private");
  EXPECT_EQ(check_of(verify("shared"), "weights").outcome, RunCheck::Outcome::kNotChecked);
  EXPECT_EQ(resume("run", kChanges).charged, 6);
  EXPECT_THAT(card_markdown(card_of("run")), HasSubstr("did not note the weights"));
  found = verify("run");
  EXPECT_THAT(found.problems(), IsEmpty());
  EXPECT_EQ(check_of(found, "weights").outcome, RunCheck::Outcome::kPassed);
}

// Without training: what covers what.
TEST(DeclaredUses, CoverWhatRevealsNoMore) {
  const auto left = [](const std::vector<std::string>& declared,
                       const std::vector<std::string>& needed) {
    MechanismPlan plan;
    plan.adjacency = Adjacency::kZeroOut;
    for (const std::string& text : declared)
      plan.stages.push_back({.name = text, .event = parse_event(text), .declared = true});
    plan.stages.push_back({.name = "own", .event = parse_event("1:0.1:1000"), .declared = false});
    std::vector<PrivacyEvent> events;
    for (const std::string& text : needed) events.push_back(parse_event(text));
    return not_declared(events, plan).size();
  };
  EXPECT_EQ(left({}, {}), 0u);
  EXPECT_EQ(left({}, {"0.1:1:10"}), 1u) << "the run's own stages cover nothing";
  EXPECT_EQ(left({}, {"0.1:1:0"}), 0u);
  EXPECT_EQ(left({"0.1:1:10"}, {"0.1:1:10"}), 0u);
  EXPECT_EQ(left({"0.1:1:10"}, {"0.1:1:10", "0.1:1:10"}), 1u) << "each covers one";
  EXPECT_EQ(left({"0.2:0.9:11"}, {"0.1:1:10"}), 0u);
  EXPECT_EQ(left({"0.2:1:20", "0.1:1:10"}, {"0.1:1:10", "0.2:1:20"}), 0u);
  EXPECT_EQ(left({"gaussian:1:50"}, {"0.1:1:10"}), 1u);
  EXPECT_EQ(left({"gaussian:1:50:2"}, {"gaussian:1:50:2"}), 0u);
  EXPECT_EQ(left({"gaussian:1:50:1"}, {"gaussian:1:50:2"}), 1u);
  EXPECT_EQ(left({"approximate:1:1e-6"}, {"approximate:1:1e-6", "approximate:1:1e-6"}), 1u);
  // One approximate use pays for all that cost no more: 1:1:1 costs 4.3772 at 1e-5 (closed form).
  EXPECT_EQ(left({"approximate:4.4:1e-5"}, {"gaussian:1:1"}), 0u);
  EXPECT_EQ(left({"approximate:4.37:1e-5"}, {"gaussian:1:1"}), 1u);
  EXPECT_EQ(left({"approximate:4.4:1e-6"}, {"gaussian:1:1"}), 1u);
  EXPECT_EQ(left({"approximate:4.4:1e-5"}, {"gaussian:1:1.4142135623730951:2"}), 0u);
  EXPECT_EQ(left({"approximate:4.4:1e-5"}, {"gaussian:1:1:2"}), 1u);
}

}  // namespace
}  // namespace sfumato
