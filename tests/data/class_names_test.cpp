// Labels come from a public list of names, never from what the private source holds.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/prepare_fixture.h"
#include "sfumato/core/class_name.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace test;

class ClassNames : public Prepare {
 protected:
  std::vector<std::pair<int, int>> records_of(const PrepareOptions& given) {
    std::filesystem::remove_all(options.store);
    prepare(given);
    std::vector<std::pair<int, int>> result;
    const auto v = values(), l = labels();
    for (std::size_t i = 0; i < v.size(); ++i) result.emplace_back(v[i], l[i]);
    std::ranges::sort(result);
    return result;
  }
  std::string usage_error() {
    return message_of<UsageError>([&] { prepare(options); });
  }
};

/// Adjacent sets: with one image more, of a class that had none, no other record changes. Sorted
/// folders would have given every dog and eel another label.
TEST_F(ClassNames, OneImageOfANewClassRelabelsNoOther) {
  put_image("bee/1.png", flat_png(1));
  put_image("dog/1.png", flat_png(2));
  put_image("eel/1.png", flat_png(3));
  options.class_names = {"ant", "bee", "cat", "dog", "eel"};
  auto with = options;
  const auto before = records_of(options);
  EXPECT_THAT(before, ElementsAre(std::pair(1, 1), std::pair(2, 3), std::pair(3, 4)));
  for (const char* added : {"ant", "cat"}) {
    put_image(std::string(added) + "/only.png", flat_png(9));
    auto after = records_of(options);
    std::erase_if(after, [](const auto& record) { return record.first == 9; });
    EXPECT_EQ(after, before) << added;
    std::filesystem::remove_all(options.source / added);
  }
  std::filesystem::remove_all(options.store);
  put_image("crow/only.png", flat_png(9));  // of a class that the public does not know: refused
  EXPECT_THAT(data_error(), AllOf(HasSubstr("'crow'"), HasSubstr("data.class_names")));
}

TEST_F(ClassNames, WithoutAListTheSourceOnlyProposes) {
  for (int c = 0; c < 12; ++c) put_image(std::to_string(c) + "/1.png", flat_png(c));
  options.num_classes = 12;
  EXPECT_THAT(
      usage_error(),
      AllOf(HasSubstr("class_names: [\"0\", \"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", "
                      "\"8\", \"9\", \"10\", \"11\"]"),
            HasSubstr("only the private data knows"), HasSubstr("--accept-class-names"),
            Not(HasSubstr("These are"))));
  EXPECT_FALSE(std::filesystem::exists(options.store));
  options.num_classes = 10;
  EXPECT_THAT(usage_error(), HasSubstr("These are 12 names, and data.num_classes is 10"));
  options.accept_class_names = true;
  EXPECT_THAT(usage_error(), HasSubstr("12 class names"));
  options.num_classes = 12;
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.class_names_from, "source");
  EXPECT_EQ(report.class_names[2], "2");
  const RecordStore store = RecordStore::open(options.store);
  EXPECT_EQ(store.layout().class_names_from, "source");
  for (std::int64_t i = 0; i < store.count(); ++i) EXPECT_EQ(store.label(i), store.pixels(i)[0]);
  options.num_classes = 0;
  options.store = folder / "none";
  EXPECT_THAT(usage_error(), HasSubstr("data.num_classes is 0"));
}

TEST_F(ClassNames, ProposalsSortNumbersByValueAndTextByBytes) {
  for (const char* name : {"10", "9", "007", "100000000000000000000", "99999999999999999999"})
    put_image(std::string(name) + "/1.png", flat_png(1));
  options.num_classes = 5;
  EXPECT_THAT(usage_error(), HasSubstr("[\"007\", \"9\", \"10\", \"99999999999999999999\", "
                                       "\"100000000000000000000\"]"));
  put_image("a \"b\"/1.png", flat_png(1));
  options.num_classes = 6;
  EXPECT_THAT(usage_error(), HasSubstr("\"9\", \"99999999999999999999\", \"a \\\"b\\\"\"]"));
}

TEST_F(ClassNames, UnknownFolderIsNamedWithItsNeighbours) {
  put_image("cats/1.png", flat_png(1));
  put_image("dog/1.png", flat_png(1));
  options.class_names = {"cat", "dog"};
  EXPECT_THAT(data_error(), AllOf(HasSubstr("'cats'"), HasSubstr("did you mean 'cat'?")));
  TarWriter writer(folder / "pets.tar");
  for (const char* name : {"dog/1.png", "cats/2.png"}) writer.add(name, flat_png(1));
  writer.finish();
  options.source = folder / "pets.tar";
  EXPECT_THAT(data_error(), AllOf(HasSubstr("'cats'"), HasSubstr("did you mean 'cat'?")));
}

TEST_F(ClassNames, TheListDecidesTheOrder) {
  put_image("cat/1.png", flat_png(1));
  put_image("dog/1.png", flat_png(2));
  options.class_names = {"dog", "cat"};
  EXPECT_THAT(records_of(options), ElementsAre(std::pair(1, 1), std::pair(2, 0)));
  EXPECT_EQ(RecordStore::open(options.store).layout().class_names_from, "configuration");
}

TEST_F(ClassNames, AClassWithoutAnImageIsAnErrorUnlessAllowed) {
  put_image("cat/1.png", flat_png(1));
  put_image("dog/1.png", flat_png(2));
  put_image("bird/1.gif", "not read");
  options.class_names = {"bird", "cat", "dog", "eel"};  // eel has no folder: only a warning
  EXPECT_THAT(data_error(), AllOf(HasSubstr("no image for class 'bird'"),
                                  HasSubstr("1 other files not looked at"),
                                  HasSubstr("data.allow_empty_classes"), Not(HasSubstr("eel"))));
  for (const std::vector<std::string>& allowed : {std::vector<std::string>{"bird"}, {"*"}}) {
    options.allow_empty_classes = allowed;
    EXPECT_THAT(records_of(options), ElementsAre(std::pair(1, 1), std::pair(2, 2)));
    EXPECT_EQ(RecordStore::open(options.store).layout().classes_that_may_be_empty, allowed);
  }
  options.store = folder / "none";
  options.allow_empty_classes = {"brid"};
  EXPECT_THAT(usage_error(), HasSubstr("did you mean 'bird'?"));
}

TEST_F(ClassNames, NumbersWithoutImagesAndNumbersWithNames) {
  put(folder / "images", make_idx(8, {2, 4, 4}, std::string(16, '\1') + std::string(16, '\2')));
  put(folder / "labels", make_idx(8, {2}, "\1\2"));
  options.source = folder / "images";
  options.labels = folder / "labels";
  options.num_classes = 3;
  EXPECT_THAT(data_error(), HasSubstr("no image for class '0'"));  // as EMNIST's letters, 1 to 26
  options.class_names = {"none", "a", "b"};
  options.allow_empty_classes = {"none"};
  EXPECT_THAT(records_of(options), ElementsAre(std::pair(1, 1), std::pair(2, 2)));
  EXPECT_THAT(RecordStore::open(options.store).class_names(), ElementsAre("none", "a", "b"));
  options.num_classes = 2;
  EXPECT_THAT(usage_error(), HasSubstr("3 class names"));
}

TEST_F(ClassNames, AFileBesideCifarOnlyProposes) {
  options.image_size = 32;
  options.channels = 3;
  options.num_classes = 2;
  put_image("data_batch_1.bin",
            std::string(1, '\0') + std::string(3072, '\1') + "\1" + std::string(3072, '\2'));
  put_image("batches.meta.txt", "plane\ncar\n");
  EXPECT_THAT(prepare(options).class_names, ElementsAre("0", "1"));
  options.store = folder / "accepted";
  options.accept_class_names = true;
  const PrepareReport report = prepare(options);
  EXPECT_THAT(report.class_names, ElementsAre("plane", "car"));
  EXPECT_EQ(report.class_names_from, "source");
}

TEST_F(ClassNames, NamesThatAreNoTextAreRefusedByName) {
  for (const char* name : {"caf\xe9", "\xed\xa0\x80", "new\nline"}) {
    std::filesystem::remove_all(options.source);
    put_image(std::string(name) + "/1.png", flat_png(1));
    put_image("dog/1.png", flat_png(1));
    options.num_classes = 2;
    options.class_names.clear();
    EXPECT_THAT(data_error(), AllOf(HasSubstr("\\x"), HasSubstr("rename it")));
    options.class_names = {"cafe", "dog"};
    EXPECT_THAT(data_error(), HasSubstr("\\x"));
  }
  options.num_classes = 0;  // without classes a name is only a name
  options.merge_folders = true;
  options.class_names.clear();
  put_image("f\xfc.png", flat_png(4));
  EXPECT_EQ(prepare(options).kept, 2);
  options.source = folder / "s\xff";
  put_image("1.png", flat_png(4));
  options.store = folder / "second";
  EXPECT_EQ(prepare(options).kept, 1);
}

TEST_F(ClassNames, NamesOfAListAreChecked) {
  put_image("cat/1.png", flat_png(1));
  put_image("dog/1.png", flat_png(1));
  options.class_names = {"cat", "dog", "cat"};
  EXPECT_THAT(usage_error(), HasSubstr("'cat' twice"));
  options.class_names = {"cat", "dog", ""};
  EXPECT_THAT(usage_error(), HasSubstr("is empty"));
}

TEST_F(ClassNames, AreReadFromAFile) {
  put(folder / "names.txt",
      "\xEF\xBB\xBF"
      "cat\r\nguinea pig\r\n\r\n");
  EXPECT_THAT(read_class_names(folder / "names.txt"), ElementsAre("cat", "guinea pig"));
  put(folder / "names.txt", "cat\n\ndog\n");
  EXPECT_THAT(message_of<DataError>([&] { read_class_names(folder / "names.txt"); }),
              HasSubstr("names.txt:2:"));
  put(folder / "names.txt", "\n");
  EXPECT_THAT(message_of<DataError>([&] { read_class_names(folder / "names.txt"); }),
              HasSubstr("no class name"));
}

/// Stores from before names were literals say so.
TEST_F(ClassNames, OfAnOlderStoreCountAsFound) {
  put_image("cat/1.png", flat_png(1));
  put_image("dog/1.png", flat_png(1));
  options.class_names = {"cat", "dog"};
  prepare(options);
  const auto file = options.store / "manifest.json";
  auto manifest = nlohmann::json::parse(get(file));
  const auto reopened = [&](const std::vector<std::string>& names) {
    manifest.erase("class_names_from");
    manifest.erase("classes_that_may_be_empty");
    manifest["class_names"] = names;
    nlohmann::json hashed = manifest;
    hashed.erase("key");
    hashed.erase("manifest_hash");
    manifest["manifest_hash"] = hmac_sha256_hex(manifest["key"].get<std::string>(), hashed.dump());
    put(file, manifest.dump());
    return RecordStore::open(options.store).layout().class_names_from;
  };
  EXPECT_EQ(reopened({"cat", "dog"}), "source");
  EXPECT_EQ(reopened({"0", "1"}), "numbers");
}

class OwnCorpus : public ClassNames {
 protected:
  void put_lineage(const nlohmann::json& content) {
    nlohmann::json lineage = content;
    lineage["made_by"] = {{"name", "sfumato"}};
    put_image("lineage.json", lineage.dump());
  }
};

TEST_F(OwnCorpus, GivesItsLabelsBackAlsoWithoutSomeClasses) {
  nlohmann::json classes;
  for (int c = 0; c < 12; ++c) {
    const std::string name = c == 3 ? "test" : "class " + std::to_string(c);
    const std::string folder_name = (c < 10 ? "0" : "") + std::to_string(c) + (c == 3 ? "" : "_x");
    classes.push_back({{"label", c},
                       {"name", name},
                       {"folder", "images/" + folder_name},
                       {"images", c == 5 ? 0 : 1}});
    if (c != 5) put_image("images/" + folder_name + "/000000.png", flat_png(c));
  }
  put_lineage({{"classes", classes}});
  put_image("__preview__/contact_sheet.png", flat_png(99));
  options.num_classes = 12;
  const auto corpus = options.source;
  for (const auto& source : {corpus, corpus / "", corpus / "images", corpus / "images" / ""}) {
    options.source = source;
    const auto found = records_of(options);
    ASSERT_EQ(found.size(), 11u) << source;
    for (const auto& [value, label] : found) EXPECT_EQ(value, label) << source;
    const RecordStore store = RecordStore::open(options.store);
    EXPECT_EQ(store.class_names()[3], "test");
    EXPECT_EQ(store.layout().class_names_from, "corpus");
    EXPECT_THAT(store.layout().classes_that_may_be_empty, ElementsAre("class 5"));
  }
}

TEST_F(OwnCorpus, AnImageOfNoClassOfItIsRefused) {
  put_lineage({{"classes",
                {{{"label", 0}, {"name", "cat"}, {"folder", "images/0_cat"}, {"images", 1}},
                 {{"label", 1}, {"name", "dog"}, {"folder", "images/1_dog"}, {"images", 1}}}}});
  put_image("images/0_cat/000000.png", flat_png(1));
  put_image("images/1_dog/000000.png", flat_png(2));
  options.num_classes = 2;
  EXPECT_EQ(prepare(options).kept, 2);
  std::filesystem::remove_all(options.store);
  put_image("images/eel/000000.png", flat_png(3));
  EXPECT_THAT(data_error(), HasSubstr("'eel'"));
}

TEST_F(OwnCorpus, OfShardsAndOfAnEarlierVersion) {
  std::filesystem::create_directories(options.source);
  TarWriter writer(options.source / "shard-000000.tar");
  for (const int c : {10, 2, 0}) {
    const std::string key = (c < 10 ? "0" : "") + std::to_string(c) + "-000000";
    writer.add(key + ".png", flat_png(c));
    writer.add(key + ".cls", std::to_string(c));
  }
  writer.finish();
  nlohmann::json counts(12, 0);
  for (const int c : {10, 2, 0}) counts[static_cast<std::size_t>(c)] = 1;
  put_lineage({{"images_per_class", counts}});
  options.num_classes = 12;
  const auto corpus = options.source;
  for (const auto& source : {corpus, corpus / "shard-000000.tar"}) {
    options.source = source;
    EXPECT_THAT(records_of(options),
                ElementsAre(std::pair(0, 0), std::pair(2, 2), std::pair(10, 10)));
  }
  options.source = corpus;
  std::filesystem::remove(corpus / "shard-000000.tar");
  for (const int c : {10, 2, 0})
    put_image("images/" + std::to_string(c) + "/000000.png", flat_png(c));
  EXPECT_THAT(records_of(options),
              ElementsAre(std::pair(0, 0), std::pair(2, 2), std::pair(10, 10)));
  std::filesystem::remove_all(options.store);
  put_image(".sampling.json", "{}");
  EXPECT_THAT(data_error(), HasSubstr("unfinished corpus"));
}

TEST_F(OwnCorpus, PatternsOfItsShardsAndNamedFormats) {
  std::filesystem::create_directories(options.source);
  const std::vector<std::string> names = {"2", "1", "0"};
  nlohmann::json classes;
  for (int c = 0; c < 3; ++c) {
    TarWriter writer(options.source / ("shard-00000" + std::to_string(c) + ".tar"));
    const std::string key = std::to_string(c) + "-000000";
    writer.add(key + ".png", flat_png(c));
    writer.add(key + ".cls", std::to_string(c));
    writer.finish();
    classes.push_back({{"label", c}, {"name", names[static_cast<std::size_t>(c)]}, {"images", 1}});
  }
  put_lineage({{"classes", classes}});
  options.num_classes = 3;
  const auto corpus = options.source;
  const std::vector<std::pair<int, int>> all = {{0, 0}, {1, 1}, {2, 2}};
  for (const char* pattern : {"", "shard-*.tar", "shard-{000000..000002}.tar", "shard-*",
                              "shard-00000{0,1,2}.tar", "*.tar"})
    for (const SourceFormat format : {SourceFormat::kAuto, SourceFormat::kTar})
      for (const char* column : {"label", "class_name"}) {
        options.source = corpus / pattern;
        options.format = format;
        options.label_column = column;
        EXPECT_EQ(records_of(options), all) << pattern << to_string(format) << column;
        EXPECT_THAT(RecordStore::open(options.store).class_names(), ElementsAre("2", "1", "0"));
      }
  std::filesystem::remove_all(options.store);
  options.label_column = "kind";
  EXPECT_THAT(usage_error(), HasSubstr("label and class_name"));
  options.label_column = "label";
  put(folder / "users.csv",
      "shard-000000.tar/0-000000.png,ann\nshard-000001.tar/1-000000.png,ann\n");
  options.users = folder / "users.csv";
  options.source = corpus / "shard-{000000..000001}.tar";
  options.allow_empty_classes = {"*"};
  EXPECT_EQ(prepare(options).users, 1);
  options.users.clear();
  std::filesystem::remove_all(options.store);
  std::filesystem::create_directories(folder / "source2");
  std::filesystem::copy(corpus / "shard-000000.tar", folder / "source2");
  options.source = folder / "source*/shard-*.tar";
  EXPECT_THAT(data_error(), HasSubstr("not of one corpus"));
}

TEST_F(OwnCorpus, IsRecognisedWhateverFormatIsNamed) {
  put_lineage({{"classes",
                {{{"label", 0}, {"name", "b"}, {"folder", "images/0_b"}, {"images", 1}},
                 {{"label", 1}, {"name", "a"}, {"folder", "images/1_a"}, {"images", 1}}}}});
  put_image("images/0_b/000000.png", flat_png(0));
  put_image("images/1_a/000000.png", flat_png(1));
  put_image("metadata.csv",
            "file_name,label,class_name\nimages/0_b/000000.png,0,b\nimages/1_a/000000.png,1,a\n");
  options.num_classes = 2;
  for (const SourceFormat format : {SourceFormat::kAuto, SourceFormat::kFolder})
    for (const char* column : {"label", "class_name"}) {
      options.format = format;
      options.label_column = column;
      EXPECT_THAT(records_of(options), ElementsAre(std::pair(0, 0), std::pair(1, 1)));
      EXPECT_THAT(RecordStore::open(options.store).class_names(), ElementsAre("b", "a"));
    }
  // Somebody's archive beside the images/ of a corpus is read, and not the corpus.
  TarWriter writer(options.source / "mine.tar");
  writer.add("x/1.png", flat_png(7));
  writer.finish();
  options.source /= "mine.tar";
  options.format = SourceFormat::kAuto;
  options.label_column = "label";
  options.num_classes = 1;
  options.accept_class_names = true;
  EXPECT_EQ(records_of(options).at(0).first, 7);
}

}  // namespace
}  // namespace sfumato
