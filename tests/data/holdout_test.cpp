#include "sfumato/data/holdout.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/prepare_fixture.h"
#include "sfumato/core/file.h"
#include "sfumato/data/inspect_store.h"

namespace sfumato {
namespace {

using ::testing::HasSubstr;
using namespace test;

std::set<int> values_in(const std::filesystem::path& place) {
  const RecordStore store = RecordStore::open(place);
  std::set<int> values;
  for (std::int64_t i = 0; i < store.count(); ++i) values.insert(store.pixels(i)[0]);
  return values;
}

class Holdout : public Prepare {
 protected:
  Holdout() { options.holdout = 0.3; }
  void put_images(int count) {
    for (int i = 0; i < count; ++i) put_image(std::to_string(i) + ".png", flat_png(i));
  }
  std::filesystem::path held() const { return holdout_store(options.store); }
  PrepareReport anew() {
    std::filesystem::remove_all(held());
    return again();
  }
};

TEST(HoldoutRule, IsAPublicHashOfOneName) {
  // python3: int(sha256(b"sfumato holdout " + name).hexdigest()[:16], 16) / 2**64
  EXPECT_NEAR(holdout_place("cat/1.png"), 0.452241075775521, 1e-12);
  EXPECT_NEAR(holdout_place("anna"), 0.755787784833122, 1e-12);
  int held = 0;
  for (int i = 0; i < 10000; ++i) held += is_held_out(std::to_string(i), 0.2);
  EXPECT_NEAR(held, 2000, 200);  // 5 standard deviations
  EXPECT_FALSE(is_held_out("x", 0));
}

TEST(HoldoutRule, ThePlaceHasOneName) {
  EXPECT_EQ(holdout_store("stores/a"), "stores/a-holdout");
  EXPECT_EQ(holdout_store("stores/a/"), "stores/a-holdout");
  EXPECT_EQ(holdout_store("./stores//a"), "stores/a-holdout");
}

TEST_F(Holdout, EveryImageIsOnItsOwnSide) {
  put_images(60);
  const PrepareReport report = prepare(options);
  const std::set<int> train = values_in(options.store), held_out = values_in(held());
  EXPECT_EQ(std::ssize(train), report.kept);
  EXPECT_EQ(std::ssize(held_out), report.held_out);
  EXPECT_EQ(report.kept + report.held_out, 60);
  for (int i = 0; i < 60; ++i) {
    const bool out = is_held_out(std::to_string(i) + ".png", 0.3);
    EXPECT_EQ(held_out.contains(i), out) << i;
    EXPECT_EQ(train.contains(i), !out) << i;
  }
  RecordStore::open(held()).verify_checksums();
}

TEST_F(Holdout, IsFoundBesideItsStoreWhereItIsAStore) {
  put_images(60);
  EXPECT_FALSE(held_out_beside(options.store)) << "nothing is prepared";
  prepare(options);
  EXPECT_EQ(held_out_beside(options.store), held());
  std::filesystem::rename(held(), folder / "away");
  EXPECT_FALSE(held_out_beside(options.store));
  make_folder(held());
  EXPECT_FALSE(held_out_beside(options.store)) << "any folder";
  put(held() / "notes.txt", "x");
  EXPECT_FALSE(held_out_beside(options.store));
  make_folder(folder / "images-holdout");
  std::filesystem::copy(folder / "away", folder / "images-holdout");
  make_folder(folder / "images");
  EXPECT_FALSE(held_out_beside(folder / "images")) << "of a folder that is no store";
}

/// What makes one image a unit: taking any image away leaves all others where they were.
TEST_F(Holdout, TakingOneImageAwayMovesNoOther) {
  put_images(12);
  prepare(options);
  const std::set<int> train = values_in(options.store), held_out = values_in(held());
  for (int gone = 0; gone < 12; ++gone) {
    const auto file = options.source / (std::to_string(gone) + ".png");
    std::filesystem::remove(file);
    anew();
    std::set<int> others = train, others_held = held_out;
    others.erase(gone);
    others_held.erase(gone);
    EXPECT_EQ(values_in(options.store), others) << gone;
    EXPECT_EQ(values_in(held()), others_held) << gone;
    put(file, flat_png(gone));
  }
}

TEST_F(Holdout, AllImagesOfAUserAreOnOneSide) {
  put_images(60);
  std::string csv = "user,file\n";
  const auto user_of = [](int i) { return "user" + std::to_string(i / 4); };
  for (int i = 0; i < 60; ++i) csv += user_of(i) + "," + std::to_string(i) + ".png\n";
  put(folder / "users.csv", csv);
  options.users = folder / "users.csv";
  options.records_per_user = 3;
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.users + report.users_held_out, 15);
  EXPECT_GT(report.users_held_out, 0);
  EXPECT_EQ(report.held_out, 3 * report.users_held_out);
  EXPECT_EQ(report.kept, 3 * report.users);
  for (const int i : values_in(options.store)) EXPECT_FALSE(is_held_out(user_of(i), 0.3)) << i;
  for (const int i : values_in(held())) EXPECT_TRUE(is_held_out(user_of(i), 0.3)) << i;
}

/// No held-out image may change what training reads, nor the other way about.
TEST_F(Holdout, EachSideIsDeduplicatedByItself) {
  put_images(30);
  int held_name = 0, train_name = 0;
  while (!is_held_out("z" + std::to_string(held_name) + ".png", 0.3)) ++held_name;
  while (is_held_out("z" + std::to_string(train_name) + ".png", 0.3)) ++train_name;
  put_image("z" + std::to_string(held_name) + ".png", flat_png(200));
  put_image("z" + std::to_string(train_name) + ".png", flat_png(200));
  EXPECT_EQ(prepare(options).duplicates, 0);
  EXPECT_TRUE(values_in(options.store).contains(200));
  EXPECT_TRUE(values_in(held()).contains(200));
}

TEST_F(Holdout, StoresKnowWhoseTheyAre) {
  put_images(30);
  prepare(options);
  const RecordStore store = RecordStore::open(options.store), other = RecordStore::open(held());
  EXPECT_TRUE(is_holdout(other));
  EXPECT_FALSE(is_holdout(store));
  EXPECT_NO_THROW(check_holdout_of(store, other));
  EXPECT_THROW(check_holdout_of(other, store), DataError);
  EXPECT_NE(store.manifest_hash(), other.manifest_hash());
  // Of an earlier preparation: its images may be in the new one.
  options.holdout = 0;
  options.key.clear();
  again();
  EXPECT_THAT(
      message_of<DataError>([&] { check_holdout_of(RecordStore::open(options.store), other); }),
      HasSubstr("may have images in common"));
  options.holdout = 0.3;
  options.store = folder / "second";
  prepare(options);
  EXPECT_THROW(check_holdout_of(RecordStore::open(options.store), other), DataError);
}

/// Both manifests have the counts of one preparation, and each store says which are its own.
TEST_F(Holdout, EachStoreIsDescribedByItsOwnNumbers) {
  put_images(30);
  const PrepareReport report = prepare(options);
  ASSERT_NE(report.kept, report.held_out);
  const auto described = [](const std::filesystem::path& store) { return describe_store(store); };
  const std::string store = described(options.store), other = described(held());
  const auto row = [](const char* key, std::int64_t value) {
    return fmt::format("\n    {:<16} {}\n", key, value);
  };
  EXPECT_THAT(store, HasSubstr(fmt::format("records          {} of", report.kept)));
  EXPECT_THAT(store, HasSubstr(row("kept", report.kept)));
  EXPECT_THAT(store, HasSubstr(row("held_out", report.held_out)));
  EXPECT_THAT(store, HasSubstr("0.3 by name, in the store beside this one, STORE-holdout"));
  EXPECT_THAT(other, HasSubstr(fmt::format("records          {} of", report.held_out)));
  EXPECT_THAT(other, ::testing::Not(HasSubstr(row("kept", report.kept))));
  EXPECT_THAT(other, HasSubstr(row("kept (other)", report.kept)));
  EXPECT_THAT(other, HasSubstr(row("held_out (here)", report.held_out)));
  EXPECT_THAT(other, HasSubstr("of which this store is the held-out part"));
}

TEST_F(Holdout, OneSideWithoutImagesIsAnError) {
  put_image("a.png", flat_png(1));
  options.holdout = 1e-9;
  EXPECT_THAT(data_error(), HasSubstr("data.holdout=1e-09 holds out none of 1 images"));
  EXPECT_FALSE(std::filesystem::exists(held()));
  options.holdout = 0.6;
  EXPECT_THROW(prepare(options), UsageError);
  int name = 0;
  while (!is_held_out(std::to_string(name) + ".png", 0.5)) ++name;
  std::filesystem::remove_all(options.source);
  put_image(std::to_string(name) + ".png", flat_png(1));
  options.holdout = 0.5;
  EXPECT_THAT(data_error(), HasSubstr("holds out all of 1 images"));
  EXPECT_FALSE(std::filesystem::exists(held()));
}

/// A place is no name: with one image fewer the places of those behind it change.
TEST_F(Holdout, PlacesAndAddRemoveDoNotGoTogether) {
  std::filesystem::create_directories(options.source);
  std::string idx("\0\0\x8\x3\0\0\0\x28\0\0\0\4\0\0\0\4", 16);
  for (int i = 0; i < 40; ++i) idx += std::string(16, static_cast<char>(i));
  put(folder / "images.idx", idx);
  options.source = folder / "images.idx";
  options.adjacency = Adjacency::kAddRemove;
  EXPECT_THAT(message_of<PrivacyError>([&] { prepare(options); }),
              HasSubstr("mechanism.adjacency to zero_out or replace_one"));
  options.adjacency = Adjacency::kZeroOut;
  prepare(options);
  const RecordStore store = RecordStore::open(options.store);
  EXPECT_THROW(check_holdout_adjacency(store, Adjacency::kAddRemove), PrivacyError);
  EXPECT_NO_THROW(check_holdout_adjacency(store, Adjacency::kReplaceOne));
  for (const int i : values_in(held())) EXPECT_TRUE(is_held_out(std::to_string(i), 0.3)) << i;
  options.source = folder / "source";
  put_images(30);
  options.store = folder / "named";
  options.adjacency = Adjacency::kAddRemove;
  prepare(options);
  EXPECT_NO_THROW(check_holdout_adjacency(RecordStore::open(options.store), options.adjacency));
}

}  // namespace
}  // namespace sfumato
