// Privacy cards that speak of prepared images, where the images lie in archives, and corpora that
// have lost theirs.
#include <nlohmann/json.hpp>

#include "data/archive_fixture.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/store_manifest.h"

namespace sfumato {
namespace {

using ::testing::EndsWith;
using namespace test;

const char* const kCardText = R"({"status": "private", "stages": []})";
const char* const kOwnLineage = R"({"made_by": {"name": "sfumato"}, "images_per_class": [1]})";

class CardsOfASource : public PrepareArchive {
 protected:
  CardsOfASource() {
    options.num_classes = 0;
    options.accept_class_names = false;
    options.allow_empty_classes.clear();
    options.merge_folders = true;
  }
  nlohmann::json cards_of(const std::string& source) {
    options.source = folder / source;
    again();
    return store_preparation(options.store).at("cards");
  }
  /// One card, of a network.
  void expect_card(const std::string& source, const std::string& place) {
    const nlohmann::json cards = cards_of(source);
    ASSERT_EQ(cards.size(), 1u) << source << ": " << cards;
    EXPECT_THAT(cards[0].at("file").get<std::string>(), EndsWith(place));
    EXPECT_EQ(cards[0].at("text"), kCardText);
    EXPECT_EQ(cards[0].at("sha256"), sha256_hex(kCardText));
  }
  /// One that says nothing: whoever takes the images as public ones is refused.
  void expect_unread(const std::string& source, const std::string& place) {
    const nlohmann::json cards = cards_of(source);
    ASSERT_EQ(cards.size(), 1u) << source << ": " << cards;
    EXPECT_THAT(cards[0].at("file").get<std::string>(), EndsWith(place));
    EXPECT_TRUE(cards[0].at("text").is_null());
  }
};

TEST_F(CardsOfASource, AreFoundInArchives) {
  const Files corpus = {{"set/images/a/1.png", flat_png(1)},
                        {"set/images/b/2.png", flat_png(2)},
                        {"set/privacy_card.json", kCardText}};
  put_tar("a/c.tar", corpus);
  put_zip("b/c.zip", corpus);
  for (const char* source : {"a/c.tar", "a/c.tar/set", "a/c.tar/set/images", "a/*.tar", "a"})
    expect_card(source, "c.tar:set/privacy_card.json");
  for (const char* source : {"b/c.zip", "b/c.zip/set/images/a", "b"})
    expect_card(source, "c.zip:set/privacy_card.json");
  // What lies in another folder of the archive speaks of other images.
  put_zip("d/c.zip", {{"set/1.png", flat_png(1)}, {"set2/privacy_card.json", kCardText}});
  EXPECT_TRUE(cards_of("d/c.zip/set").empty());
}

TEST_F(CardsOfASource, AreFoundInShards) {
  options.num_classes = 2;
  options.accept_class_names = true;
  options.allow_empty_classes = {"*"};
  options.merge_folders = false;
  const auto shard = [](int value) {
    return Files{{"1.png", flat_png(value)}, {"1.cls", "1"}, {"privacy_card.json", kCardText}};
  };
  put_tar("shards/0.tar", shard(1));
  expect_card("shards", "0.tar:privacy_card.json");
  put_tar("shards/1.tar", shard(2));
  expect_card("shards/{0,1}.tar", "0.tar:privacy_card.json");  // of one network
  put_tar("shards/1.tar", {{"1.png", flat_png(2)}, {"1.cls", "1"}, {"privacy_card.json", "{}"}});
  EXPECT_EQ(cards_of("shards").size(), 2u);
}

TEST_F(CardsOfASource, ThatCannotBeReadAreNotTakenForNone) {
  const std::string large = '"' + std::string(1 << 20, 'x') + '"';
  for (const std::string& text : {std::string("{"), large}) {
    const Files files = {{"privacy_card.json", text}, {"1.png", flat_png(1)}};
    put_tar("a/c.tar", files);
    put_zip("b/c.zip", files);
    expect_unread("a/c.tar", "c.tar:privacy_card.json");
    expect_unread("b/c.zip", "c.zip:privacy_card.json");
  }
  std::vector<ZipMember> members = {{.name = "privacy_card.json", .content = kCardText},
                                    {.name = "1.png", .content = flat_png(1)}};
  members[0].crc_off_by = 1;
  put(folder / "b/c.zip", make_zip(members));
  expect_unread("b/c.zip", "c.zip:privacy_card.json");
}

TEST_F(CardsOfASource, AreMissedWhereACorpusOfOursHasLostIts) {
  const Files corpus = {{"images/0/1.png", flat_png(1)}, {"lineage.json", kOwnLineage}};
  put_tar("a/c.tar", corpus);
  put_zip("b/c.zip", corpus);
  expect_unread("a/c.tar", "c.tar:privacy_card.json");
  expect_unread("b/c.zip", "c.zip:privacy_card.json");
  options.source = folder / "c";
  for (const auto& [name, content] : corpus) put_image(name, content);
  for (const char* source : {"c", "c/images", "c/images/0"})
    expect_unread(source, "c/privacy_card.json");
  std::filesystem::create_directories(folder / "shards");
  put_tar("shards/shard-000000.tar", {{"0-000000.png", flat_png(1)}, {"0-000000.cls", "0"}});
  put(folder / "shards/lineage.json", kOwnLineage);
  expect_unread("shards", "shards/privacy_card.json");
  expect_unread("shards/shard-000000.tar", "shards/privacy_card.json");
  // Those of other programs had none.
  put(folder / "c/lineage.json", R"({"made_by": {"name": "other"}})");
  EXPECT_TRUE(cards_of("c").empty());
}

}  // namespace
}  // namespace sfumato
