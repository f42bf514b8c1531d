// The warm-up on public images that a semantic query chose: which they are, in runs, on resume, and
// what may not be called public.
#include "sfumato/train/chosen_images.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/run_verification.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/run/store_uses.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

/// A public image that tells its class: all pixels 10 (class + 1) but the first, its number.
std::vector<uint8_t> public_image(int number, int label) {
  std::vector<uint8_t> pixels(64, static_cast<uint8_t>(10 * (label + 1)));
  pixels[0] = static_cast<uint8_t>(number);
  return pixels;
}

class ChosenImages : public TinyRun {
 protected:
  ChosenImages() { write_public_store("public", 0); }
  void write_public_store(const std::string& name, int first) const {
    RecordStoreWriter writer(folder / name, {8, 8, 1, 4, {"a", "b", "c", "d"}, false, 1});
    for (int i = 0; i < 20; ++i) writer.append(public_image(first + i, i % 4), i % 4);
    writer.finish({{"note", "made by a test"}});
  }
  std::vector<std::string> with_query(std::vector<std::string> more = {}) const {
    const std::string stage = "mechanism.stages.semantic_query.";
    std::vector<std::string> changes = {stage + "noise_multiplier=2",
                                        stage + "public_store=" + (folder / "public").string(),
                                        stage + "features=pixels",
                                        stage + "votes_per_record=2",
                                        "warmup.semantic.steps=3",
                                        "warmup.semantic.classes_kept=2",
                                        "warmup.batch=5",
                                        "warmup.learning_rate=0.01",
                                        "optimizer.name=sgd"};
    changes.insert(changes.end(), more.begin(), more.end());
    return changes;
  }
  /// A store of images that no other one holds, of which the manifest says that.
  fs::path prepared(const std::string& name, const nlohmann::json& preparation) {
    RecordStoreWriter writer(folder / name, {8, 8, 1, 4, {"a", "b", "c", "d"}, false, 1});
    const int first = 100 + 20 * prepared_++;
    for (int i = 0; i < 20; ++i) writer.append(public_image(first + i, i % 4), i % 4);
    writer.finish(preparation);
    return folder / name;
  }
  /// Images that a network drew which had this card.
  fs::path drawn(const std::string& name, const nlohmann::json& card_text) {
    return prepared(
        name, {{"format", "corpus"}, {"cards", {{{"file", name + ".json"}, {"text", card_text}}}}});
  }
  std::string from(const fs::path& store) const {
    return "mechanism.stages.semantic_query.public_store=" + store.string();
  }
  fs::path released(const std::string& run) const {
    return folder / run / "release/semantic_query.json";
  }
  /// A crash after the stage and before the warm-up's end.
  void copy_before_training(const std::string& from_run, const std::string& to) const {
    forget_uses();
    fs::copy(folder / from_run, folder / to, fs::copy_options::recursive);
    for (int step = 0; step <= 6; ++step) fs::remove_all(checkpoint_path(to, step));
    for (const auto& entry : fs::directory_iterator(folder / to / "release"))
      if (entry.path() != released(to)) fs::remove_all(entry.path());
  }
  bool same_start(const std::string& a, const std::string& b) const {
    return differing(checkpoint(a, 0).model, checkpoint(b, 0).model) == 0;
  }
  /// Refused before anything is charged.
  std::string refused(const fs::path& store) const {
    const std::string run = "refused" + std::to_string(++refused_);
    const std::string said =
        error_message<PrivacyError>([&] { start(run, with_query({from(store)})); });
    EXPECT_EQ(ledger(run).stage_charges.count("semantic_query"), 0u);
    return said;
  }

 private:
  mutable int refused_ = 0;
  int prepared_ = 0;
};

TEST_F(ChosenImages, AreThoseOfTheChosenClassesWithThePrivateLabel) {
  const RecordStore store = RecordStore::open(folder / "public");
  SemanticQuery query;
  query.public_store = store.manifest_hash();
  query.public_images = {5, 5, 5, 5};
  query.noisy_counts = {{1, 2, 9, 4}, {0, -1, 9, -2}, {7, 5, 1, 2}};  // chosen: 2 3, 2 0, 0 1
  const WarmUpImages images = images_of_chosen_classes(query, store, 2, 9);
  EXPECT_EQ(images.classes, 3);
  EXPECT_EQ(images.steps, 9);
  ASSERT_EQ(images.images.sizes(), (std::vector<int64_t>{30, 1, 8, 8}));
  std::map<std::pair<int64_t, int64_t>, int> found;  // private label, public label
  for (int64_t i = 0; i < 30; ++i) {
    const auto number = images.images[i][0][0][0].item<int64_t>();
    const auto label = images.images[i][0][3][3].item<int64_t>() / 10 - 1;
    EXPECT_EQ(number % 4, label);
    ++found[{images.labels[i].item<int64_t>(), label}];
  }
  EXPECT_EQ(found,
            (std::map<std::pair<int64_t, int64_t>, int>{
                {{0, 2}, 5}, {{0, 3}, 5}, {{1, 2}, 5}, {{1, 0}, 5}, {{2, 0}, 5}, {{2, 1}, 5}}));
  // What a step draws of them is theirs, as values in [-1, 1].
  const ExampleBatch batch = warm_up_examples(images, 0, 40, 7, 1);
  EXPECT_EQ(batch.images.scalar_type(), at::kFloat);
  for (int64_t i = 0; i < 40; ++i) {
    const float value = batch.images[i][0][3][3].item<float>();
    const auto label = std::llround((value + 1) * 127.5 / 10) - 1;
    EXPECT_NEAR(value, static_cast<float>(10 * (label + 1)) / 127.5 - 1, 1e-6);
    EXPECT_TRUE(found.contains({batch.labels[i].item<int64_t>(), label})) << label;
  }
  write_public_store("other", 0);
  EXPECT_THROW((void)images_of_chosen_classes(query, RecordStore::open(folder / "other"), 2, 9),
               PrivacyError);
}

TEST_F(ChosenImages, MoveTheWeightsBeforeTheFirstStepAndCostNothing) {
  const TrainResult with = start("warm", with_query()),
                    without = start("cold", with_query({"warmup.semantic.steps=0"}));
  EXPECT_EQ(with.epsilon, without.epsilon);
  EXPECT_EQ(ledger("warm").stage_charges, ledger("cold").stage_charges);
  EXPECT_EQ(ledger("warm").stage_charges.at("semantic_query"), 1);
  EXPECT_TRUE(fs::exists(checkpoint_path("warm", 0)));
  EXPECT_FALSE(fs::exists(checkpoint_path("cold", 0)));
  EXPECT_GT(with.epsilon, start("none").epsilon) << "the stage is charged";
  const SemanticQuery query = SemanticQuery::load(released("warm"));
  EXPECT_EQ(query.public_store, RecordStore::open(folder / "public").manifest_hash());
  EXPECT_EQ(query.public_classes, (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_EQ(query.votes_per_record, 2);
  ASSERT_EQ(query.noisy_counts.size(), 2u);
  double votes = 0;  // of 40 images; nobody will ever see noise of 60
  for (const auto& row : query.noisy_counts)
    for (const double count : row) votes += count;
  EXPECT_NEAR(votes, 80, 60);
}

TEST_F(ChosenImages, TheCardSaysOnWhoseWordTheyArePublic) {
  start("run", with_query());
  const auto verdict = [&] { return verify_run({folder / "run", {}, {}, false}).verdict(); };
  // Noise of this test is real: nothing else stands against the run.
  EXPECT_NE(verdict(), "DAMAGED");
  const fs::path file = folder / "run/release/privacy_card.json";
  const auto card = nlohmann::ordered_json::parse(read_file(file));
  EXPECT_THAT(card["public_data"].get<std::vector<std::string>>(),
              Contains(HasSubstr("semantic_query")));
  EXPECT_THAT(card["not_covered"].get<std::vector<std::string>>(),
              Contains(AllOf(HasSubstr("semantic_query"), HasSubstr("on the word of"))));
  for (const char* field : {"public_data", "not_covered"}) {
    nlohmann::ordered_json silent = card;
    std::erase_if(silent[field].get_ref<nlohmann::ordered_json::array_t&>(), [](const auto& each) {
      return each.template get<std::string>().find("semantic_query") != std::string::npos;
    });
    write_json_atomic(file, silent);
    EXPECT_EQ(verdict(), "DAMAGED") << field;
  }
  write_json_atomic(file, card);
  std::string counts = read_file(released("run"));
  counts[counts.find("public_store") + 16] ^= 1;
  write_file_atomic(released("run"), counts);
  EXPECT_EQ(verdict(), "DAMAGED") << "the ledger notes which store it was";
}

// A crash between stage and training: the counts are released once, and the warm-up follows from
// them again.
TEST_F(ChosenImages, BeginAnewFromTheSameCounts) {
  start("run", with_query());
  const std::string counts = read_file(released("run"));
  for (const auto& [name, change, same] :
       {std::tuple{"same", "run.seed=3", true}, {"other", "warmup.semantic.steps=4", false}}) {
    copy_before_training("run", name);
    EXPECT_THAT(error_message<PrivacyError>([&] { resume(name, with_query({change})); }),
                HasSubstr("are charged and lost"));
    EXPECT_EQ(same_start("run", name), same) << name;
    EXPECT_EQ(read_file(released(name)), counts);
    EXPECT_EQ(ledger(name).stage_charges.at("semantic_query"), 1);
  }
}

TEST_F(ChosenImages, AnotherPublicStoreIsRefusedWhenTheRunGoesOn) {
  start("run", with_query());
  write_public_store("other", 100);
  const auto refused_on = [&](const std::string& run, const std::string& change) {
    EXPECT_THAT(error_message<PrivacyError>([&] { resume(run, with_query({change})); }),
                HasSubstr("is not the record store whose classes were voted for"));
  };
  copy_before_training("run", "early");
  refused_on("early", from(folder / "other"));
  copy_run("run", "late", 4);  // its warm-up is over
  fs::create_directories(folder / "late/release");
  fs::copy_file(released("run"), released("late"));
  refused_on("late", from(folder / "other"));
  EXPECT_THAT(error_message<UsageError>([&] {
                resume("late",
                       with_query({"mechanism.stages.semantic_query.features=convolution"}));
              }),
              HasSubstr("votes were counted by 'pixels'"));
  // Wherever it lies, it is the same one.
  fs::copy(folder / "public", folder / "moved", fs::copy_options::recursive);
  EXPECT_NO_THROW(resume("late", with_query({from(folder / "moved")})));
}

TEST_F(ChosenImages, PrivateImagesAreNeverPublic) {
  EXPECT_THAT(refused(folder / "store"), HasSubstr("private images' own"));
  fs::copy(folder / "store", folder / "copy", fs::copy_options::recursive);
  EXPECT_THAT(refused(folder / "copy"), HasSubstr("private images' own"));
  write_tiny_store(folder / "again", first_records(kTinyRecords));
  EXPECT_THAT(refused(folder / "again"), HasSubstr("same images"));
  const auto prepared = [&](const fs::path& place, const nlohmann::json& preparation) {
    RecordStoreWriter writer(place, {8, 8, 1, 2, {"across", "down"}, false, 1});
    for (int i = 0; i < 10; ++i) writer.append(tiny_image(i), i % 2);
    writer.finish(preparation);
    return place;
  };
  const fs::path part = part_place(folder / "store", 0.25, /*is_tuning=*/true);
  EXPECT_THAT(refused(prepared(part, part_origin(folder / "store", 0.25, true))),
              HasSubstr("may share images"));
  EXPECT_THAT(
      refused(prepared(folder / "held", {{"held_out_of", {{"pair", "p"}, {"by", "name"}}}})),
      HasSubstr("held out"));
  // Somebody's private images, though not this run's.
  write_tiny_store(folder / "theirs", {50, 51, 52, 53, 54, 55});
  start("their_run", {"data.store=" + (folder / "theirs").string()});
  EXPECT_THAT(refused(folder / "theirs"), HasSubstr("trained on it as private images"));
}

// Wherever the stores lie, by what their manifests say.
TEST_F(ChosenImages, OfOneSetOrOneSourceTheyAreNeverPublic) {
  const std::string own = RecordStore::open(folder / "store").manifest_hash();
  EXPECT_THAT(refused(prepared("moved", {{"split_of", own}})),
              HasSubstr("a part of the private images"));
  const auto on = [&](const fs::path& store, const fs::path& as_public) {
    const std::string run = "on" + as_public.filename().string();
    return error_message<PrivacyError>([&] {
      start(run,
            with_query({from(as_public), "data.store=" + store.string(), "data.num_classes=4"}));
    });
  };
  const auto whole = prepared("whole", nlohmann::json::object());
  const std::string hash = RecordStore::open(whole).manifest_hash();
  fs::create_directories(folder / "elsewhere");
  fs::rename(prepared("part", {{"split_of", hash}}), folder / "elsewhere/part");
  EXPECT_THAT(on(folder / "elsewhere/part", whole), HasSubstr("private images are a part of it"));
  EXPECT_THAT(on(folder / "elsewhere/part",
                 prepared("other_part", {{"split_of", hash}, {"part", "final"}})),
              HasSubstr("a part of the same set"));
  const auto theirs = prepared("theirs", {{"source", "/data/faces"}});
  int number = 0;
  for (const char* source : {"/data/faces", "/data/faces/", "/data/faces/a", "/data"})
    EXPECT_THAT(on(theirs, prepared("s" + std::to_string(number++), {{"source", source}})),
                AllOf(HasSubstr(source), HasSubstr("folder or file of their own")))
        << source;
  EXPECT_NO_THROW(
      start("apart", with_query({from(prepared("s", {{"source", "/data/faces-2"}})),
                                 "data.store=" + theirs.string(), "data.num_classes=4"})));
}

TEST_F(ChosenImages, ThoseOfANetworkAreWhatItsCardSays) {
  start("first", {"mechanism.steps=2"});
  const auto text = read_file(folder / "first/release/privacy_card.json");
  const auto card = nlohmann::ordered_json::parse(text);
  const auto with = [&](const char* key, const nlohmann::ordered_json& value) {
    nlohmann::ordered_json other = card;
    other[key] = value;
    return other.dump();
  };
  EXPECT_THAT(
      refused(drawn("private", text)),
      AllOf(HasSubstr("earlier private run"), HasSubstr("mechanism.declared=[\"0.25:1:2\"]")));
  EXPECT_THAT(refused(drawn("elsewhere", with("data_manifest_hash", std::string(64, 'b')))),
              HasSubstr("mechanism.declared=[\"0.25:1:2\"]"));
  EXPECT_THAT(refused(drawn("units", with("unit", "one user, at most 3 images"))),
              HasSubstr("one user, at most 3 images"));
  EXPECT_THAT(refused(drawn("void", voided(card, "a test").dump())), HasSubstr("is VOID"));
  EXPECT_THAT(refused(drawn("open", with("status", "not_private"))),
              HasSubstr("trained without privacy"));
  EXPECT_THAT(refused(drawn("unread", nullptr)), HasSubstr("cannot be read"));
  EXPECT_THAT(refused(prepared("older", {{"format", "corpus"}, {"source", "/data/corpus"}})),
              HasSubstr("cannot be read"));
  // Of public weights, as for model.init, and of what is paid for.
  EXPECT_NO_THROW(
      start("bare", with_query({from(drawn("no_card", void_card(kNoCardReason).dump()))})));
  const TrainResult paid =
      start("paid", with_query({from(folder / "private"), "mechanism.declared=[\"0.25:1:2\"]"}));
  EXPECT_GT(paid.epsilon, start("unpaid", with_query()).epsilon);
  // Two of them are two uses.
  const nlohmann::json a = {{"file", "a"}, {"text", text}}, b = {{"file", "b"}, {"text", text}};
  const auto both = prepared("both", {{"cards", {a, b}}});
  EXPECT_THAT(error_message<PrivacyError>([&] {
                start("twice", with_query({from(both), "mechanism.declared=[\"0.25:1:2\"]"}));
              }),
              HasSubstr("[\"0.25:1:2\",\"0.25:1:2\"]"));
}

// Weights that a run without noise took from images are out: no later noise protects these.
TEST_F(ChosenImages, WhatWasPublicIsNeverPrivateAgain) {
  start("run", with_query());
  const auto private_on = [&](const std::string& store) {
    return error_message<PrivacyError>([&] {
      start("on_" + store, {"data.store=" + (folder / store).string(), "data.num_classes=4"});
    });
  };
  const std::string run = (folder / "run").string();
  EXPECT_THAT(private_on("public"), AllOf(HasSubstr("took it as public images"), HasSubstr(run)));
  fs::copy(folder / "public", folder / "copy", fs::copy_options::recursive);
  fs::remove_all(folder / "copy/uses");
  EXPECT_THAT(private_on("copy"), HasSubstr("took it as public images"));
  EXPECT_THAT(summarize_store(folder / "public").why_not, HasSubstr("took it as public images"));
  EXPECT_NO_THROW(start("open", {"data.store=" + (folder / "public").string(), "data.num_classes=4",
                                 "privacy.enabled=false"}));
  // A note that nobody can read is one.
  const fs::path notes = folder / "public/uses/public";
  for (const auto& entry : fs::directory_iterator(notes)) fs::resize_file(entry.path(), 1);
  EXPECT_THAT(private_on("public"), HasSubstr("took it as public images"));
  // A crash before the warm-up's end, and a store that was put back without its notes.
  copy_before_training("run", "early");
  fs::remove_all(notes);
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("early", with_query()); }),
              HasSubstr("are charged and lost"));
  EXPECT_THAT(private_on("public"), HasSubstr("took it as public images"));
}

TEST_F(ChosenImages, APublicStoreThatTakesNoNotesIsWarnedOf) {
  write_file_atomic(folder / "public/uses", "in the way of a folder, as what is read-only");
  testing::internal::CaptureStderr();
  EXPECT_NO_THROW(start("run", with_query()));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("keeps no note that this run takes its images as public"));
}

TEST_F(ChosenImages, AfterTheWarmUpNothingNeedsThem) {
  start("run", with_query());
  copy_run("run", "late", 4);
  fs::create_directories(folder / "late/release");
  fs::copy_file(released("run"), released("late"));
  fs::rename(folder / "public", folder / "gone");
  EXPECT_NO_THROW(resume("late", with_query()));
  copy_before_training("run", "early");
  EXPECT_THROW(resume("early", with_query()), DataError) << "this one warms up on them again";
}

TEST_F(ChosenImages, AStoreThatDoesNotFitIsRefusedBeforeItCosts) {
  const auto refused_by = [&](std::vector<std::string> changes) {
    const std::string run = "unfit" + std::to_string(changes.size()) + changes[0].substr(0, 8);
    fs::remove_all(folder / run);
    forget_uses();
    const std::string said =
        error_message<UsageError>([&] { start(run, with_query(std::move(changes))); });
    EXPECT_EQ(ledger(run).stage_charges.count("semantic_query"), 0u);
    return said;
  };
  EXPECT_THAT(refused_by({"mechanism.stages.semantic_query.votes_per_record=5"}),
              HasSubstr("4 classes with images"));
  EXPECT_THAT(refused_by({"warmup.semantic.classes_kept=5"}),
              HasSubstr("classes_kept is 5, and the public store has 4 classes with images"));
  {
    RecordStoreWriter writer(folder / "large", {16, 16, 1, 2, {"a", "b"}, false, 1});
    writer.append(std::vector<uint8_t>(256, 1), 0);
    writer.finish({{"note", "made by a test"}});
    RecordStoreWriter none(folder / "unlabelled", {8, 8, 1, 0, {}, false, 1});
    none.append(std::vector<uint8_t>(64, 1), 0);
    none.finish({{"note", "made by a test"}});
  }
  EXPECT_THAT(refused_by({from(folder / "large")}), HasSubstr("16x16"));
  EXPECT_THAT(refused_by({from(folder / "unlabelled")}), HasSubstr("no classes"));
  std::string bytes = read_file(folder / "public/records.bin");
  bytes.back() ^= 1;
  write_file_atomic(folder / "public/records.bin", bytes);
  EXPECT_THROW(start("damaged", with_query()), DataError);
}

TEST_F(ChosenImages, ComeBeforeTheCentralImages) {
  const std::vector<std::string> both =
      with_query({"mechanism.stages.central_images.noise_multiplier=2", "warmup.steps=2"});
  EXPECT_EQ(start("both", both).steps, 6);
  EXPECT_EQ(ledger("both").stage_charges.size(), 2u);
  std::vector<std::string> first = both, second = both;
  first.push_back("warmup.semantic.steps=0");
  second.push_back("warmup.steps=0");
  for (const auto& [name, changes] : {std::pair{"first", first}, {"second", second}}) {
    start(name, changes);
    EXPECT_FALSE(same_start("both", name)) << name;
  }
}

}  // namespace
}  // namespace sfumato
