#include <algorithm>

#include "data/archive_fixture.h"
#include "io/npy_bytes.h"
#include "io/zip_bytes.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using namespace test;

class PrepareZip : public PrepareArchive {};

TEST_F(PrepareZip, SameRecordsAsTheFolder) {
  const Files files = {{"cat/10.png", flat_png(1)},
                       {"cat/2.png", flat_png(2)},
                       {"cat/more/x.png", flat_png(5)},
                       {"dog/a.png", flat_png(3)},
                       {"dog/notes.txt", "not read"}};
  for (const auto& [name, content] : files) put_image(name, content);
  prepare(options);
  const std::string records = get(options.store / "records.bin");
  const std::string classes = get(options.store / "labels.bin");
  put_zip("pets", files);  // the name says nothing; the content does
  options.source = folder / "pets";
  const PrepareReport report = again();
  EXPECT_EQ(report.format, "zip");
  EXPECT_THAT(report.unread_files, ElementsAre(Pair(".txt", 1)));
  EXPECT_THAT(report.class_names, ElementsAre("cat", "dog"));
  EXPECT_EQ(get(options.store / "records.bin"), records);
  EXPECT_EQ(get(options.store / "labels.bin"), classes);
}

TEST_F(PrepareZip, FoldersWithinUsersAndHostileNames) {
  put_zip("a.zip", {{"pets/cat/1.png", flat_png(1)}, {"pets/dog/2.png", flat_png(2)}});
  options.source = folder / "a.zip";
  EXPECT_THAT(data_error(), HasSubstr("a.zip/pets"));
  options.source = folder / "a.zip/pets";
  put(folder / "users.csv", "cat/1.png,ann\ndog/2.png,bob\n");
  options.users = folder / "users.csv";
  EXPECT_EQ(prepare(options).users, 2);
  options.users.clear();
  std::filesystem::remove_all(options.store);
  put_zip("a.zip", {{"../cat/1.png", flat_png(1)}, {"dog/2.png", flat_png(2)}});
  options.source = folder / "a.zip";
  EXPECT_THAT(data_error(), HasSubstr("leads out of its archive"));
  put_zip("a.zip", {{"/cat/1.png", flat_png(1)}, {"/dog/2.png", flat_png(2)}});
  EXPECT_EQ(prepare(options).kept, 2);
}

TEST_F(PrepareZip, DamagedMemberIsTheArchivesFaultWhateverIsSkipped) {
  std::vector<ZipMember> members = {{.name = "cat/1.png", .content = flat_png(1)},
                                    {.name = "dog/2.png", .content = flat_png(2)}};
  members[1].crc_off_by = 1;
  put(folder / "a.zip", make_zip(members));
  options.source = folder / "a.zip";
  options.skip_unreadable = true;
  EXPECT_THAT(data_error(), AllOf(HasSubstr("a.zip:dog/2.png"), HasSubstr("checksum")));
}

TEST_F(PrepareArchive, WhatIsNotReadIsCalledByItsName) {
  options.source = folder / "a";
  const std::vector<std::pair<std::string, std::string>> kinds = {{"7z\xBC\xAF\x27\x1C", "7-Zip"},
                                                                  {"Rar!\x1A", "RAR"},
                                                                  {"\xFD"
                                                                   "7zXZ",
                                                                   "xz"},
                                                                  {"BZh9", "bzip2"},
                                                                  {"PAR1....", "Parquet"},
                                                                  {"\x89HDF\r\n", "HDF5"}};
  for (const auto& [start, name] : kinds) {
    put(options.source, start + std::string(600, 'x'));
    EXPECT_THAT(data_error(), HasSubstr(name));
  }
}

class PrepareShards : public PrepareArchive {
 protected:
  PrepareShards() {
    options.num_classes = 12;
    options.source = folder / "shards";
  }
};

TEST_F(PrepareShards, WebDatasetLabels) {
  put_tar("shards/000.tar", {{"b/7.png", flat_png(7)}, {"b/7.cls", "11"}, {"b/7.txt", "caption"}});
  put_tar("shards/001.tar", {{"10.cls", " 2\n"},
                             {"10.png", flat_png(10)},
                             {"2.seg.png", flat_png(99)},
                             {"2.PNG", flat_png(2)},
                             {"2.cls", "0"},
                             {"._2.png", "x"},
                             {"__MACOSX/3.cls", "z"}});
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.format, "tar");
  EXPECT_THAT(values(), ElementsAre(7, 10, 2));
  EXPECT_THAT(labels(), ElementsAre(11, 2, 0));
  EXPECT_THAT(report.unread_files,
              ElementsAre(Pair("(second image of a sample)", 1), Pair(".txt", 1)));
  for (const char* pattern : {"shards/*.tar", "shards/{000..001}.tar", "shards/00{0,1}.tar"}) {
    options.source = folder / pattern;
    EXPECT_EQ(again().kept, 3) << pattern;
    EXPECT_THAT(labels(), ElementsAre(11, 2, 0));
  }
  options.source = folder / "shards/001.tar";
  EXPECT_EQ(again().kept, 2);
}

TEST_F(PrepareShards, LabelsInJson) {
  put_tar("shards/0.tar", {{"1.json", R"({"class": 3})"},
                           {"1.png", flat_png(1)},
                           {"2.png", flat_png(2)},
                           {"2.json", R"({"label": 5, "class": 9})"}});
  prepare(options);
  EXPECT_THAT(labels(), ElementsAre(3, 5));
  options.num_classes = 2;
  put_tar("shards/0.tar", {{"1.json", R"({"kind": "dog"})"},
                           {"1.png", flat_png(1)},
                           {"2.png", flat_png(2)},
                           {"2.json", R"({"kind": "cat"})"}});
  options.label_column = "kind";
  EXPECT_THAT(again().class_names, ElementsAre("cat", "dog"));
  EXPECT_THAT(labels(), ElementsAre(1, 0));
  std::filesystem::remove_all(options.store);
  put_tar("shards/0.tar", {{"1.json", R"({"kind": ["dog", "cat"]})"}, {"1.png", flat_png(1)}});
  EXPECT_THAT(data_error(), AllOf(HasSubstr("0.tar:1.json"), HasSubstr("a list")));
}

/// Where labels come from must not hang on one image: with class folders and JSON that disagree, an
/// image without a label would otherwise change the labels of all others.
TEST_F(PrepareShards, LabelsInTheJsonOfSomeImagesAreAnError) {
  put_tar("shards/0.tar", {{"a/1.json", R"({"caption": "x"})"},
                           {"a/1.png", flat_png(1)},
                           {"a/2.json", R"({"label": 1})"},
                           {"a/2.png", flat_png(2)}});
  EXPECT_THAT(data_error(), AllOf(HasSubstr("0.tar:a/1.json"), HasSubstr("no 'label'")));
}

TEST_F(PrepareShards, SamplesThatAreIncomplete) {
  put_tar("shards/0.tar", {{"1.png", flat_png(1)}, {"1.cls", "1"}, {"2.png", flat_png(2)}});
  EXPECT_THAT(data_error(), AllOf(HasSubstr("0.tar:2.png"), HasSubstr("no .cls file")));
  put_tar("shards/0.tar",
          {{"1.png", flat_png(1)}, {"2.png", flat_png(2)}, {"1.cls", "1"}, {"2.cls", "1"}});
  EXPECT_THAT(data_error(), HasSubstr("--sort=name"));
  put_tar("shards/0.tar", {{"1.png", flat_png(1)}, {"1.jpg", flat_png(2)}, {"1.cls", "1"}});
  EXPECT_THAT(data_error(), HasSubstr("which of them"));
  put_tar("shards/0.tar", {{"1.a.png", flat_png(1)}, {"1.b.png", flat_png(2)}, {"1.cls", "1"}});
  EXPECT_THAT(data_error(), HasSubstr("first dot"));
  put_tar("shards/0.tar", {{"1.png", flat_png(1)}, {"1.cls", "1 0 1"}});
  EXPECT_THAT(data_error(), HasSubstr("several labels"));
  put_tar("shards/0.tar", {{"1.png", flat_png(1)}, {"1.cls", ""}});
  EXPECT_THAT(data_error(), HasSubstr("empty"));
  put_tar("shards/0.tar", {{"1.png", flat_png(1)}, {"1.cls", std::string(5000, '1')}});
  EXPECT_THAT(data_error(), HasSubstr("at most 4096"));
  put_tar("shards/0.tar", {{"1.png", flat_png(1)}, {"1.cls", "12"}});
  EXPECT_THAT(data_error(), HasSubstr("label 12"));
}

TEST_F(PrepareShards, LabelFilesCountBesideImagesAlone) {
  options.num_classes = 2;
  put_tar("shards/0.tar", {{"cat/1.png", flat_png(1)},
                           {"dog/2.png", flat_png(2)},
                           {"dog/article.cls", std::string(5000, 'x')},
                           {"dog/settings.json", R"({"label": "printer"})"}});
  EXPECT_THAT(prepare(options).class_names, ElementsAre("cat", "dog"));
  std::filesystem::remove_all(options.store);
  options.num_classes = 8;
  options.source = folder / "unpacked";
  put_image("1.png", flat_png(1));
  put_image("1.cls", "7");
  put_image("1-b.png", flat_png(2));
  put_image("1-b.cls", "3");
  prepare(options);
  EXPECT_THAT(values(), ElementsAre(2, 1));
  EXPECT_THAT(labels(), ElementsAre(3, 7));
}

TEST_F(PrepareShards, SeveralSplitsAndPatternsWithoutFiles) {
  const Files one = {{"1.png", flat_png(1)}, {"1.cls", "1"}};
  put_tar("shards/train-000.tar", one);
  put_tar("shards/val-000.tar", one);
  EXPECT_THAT(data_error(), AllOf(HasSubstr("train-000, val-000"), HasSubstr("val-*.tar")));
  options.source = folder / "shards/train-*.tar";
  EXPECT_EQ(prepare(options).kept, 1);
  std::filesystem::remove_all(options.store);
  options.source = folder / "shards/test-*.tar";
  EXPECT_THAT(data_error(), HasSubstr("no file matches"));
  options.source = folder / "shards/train-{000..001}.tar";
  EXPECT_THAT(data_error(), HasSubstr("train-001.tar' does not exist"));
  options.source = folder / "shards/{x}.tar";
  EXPECT_THROW(prepare(options), UsageError);
  options.source = folder / "shards/{0..99999999}.tar";
  EXPECT_THROW(prepare(options), UsageError);
}

TEST_F(PrepareShards, PatternsOverSeveralSplitsAreRefusedAndListsAreNot) {
  const auto one = [](int value) { return Files{{"1.png", flat_png(value)}, {"1.cls", "1"}}; };
  put_tar("shards/train-0000.tar", one(1));
  put_tar("shards/val-0000.tar", one(2));
  for (const char* pattern : {"shards/*.tar", "shards/*-0000.tar", "shards/[tv]*.tar",
                              "shards/*-{0000..0000}.tar", "shards/{*,val-0000}.tar"}) {
    options.source = folder / pattern;
    EXPECT_THAT(data_error(), AllOf(HasSubstr("several splits: train-0000, val-0000"),
                                    HasSubstr("data.source='" + (folder / "shards").string())))
        << pattern;
  }
  for (const char* pattern : {"shards/{train,val}-0000.tar", "shards/{train,val}-*.tar"}) {
    options.source = folder / pattern;
    EXPECT_EQ(again().kept, 2) << pattern;
  }
  std::filesystem::remove_all(options.store);
  put_tar("dots/set.train.tar.gz", one(1));
  put_tar("dots/set.val.tar.gz", one(2));
  options.source = folder / "dots/set*";
  EXPECT_THAT(data_error(), AllOf(HasSubstr("set.train, set.val"), HasSubstr("set.val*.tar.gz'")));
  put_tar("parts/train/0.tar", one(1));
  put_tar("parts/test/0.tar", one(2));
  options.source = folder / "parts/*/0.tar";
  EXPECT_THAT(data_error(), HasSubstr("several splits: test, train"));
  options.source = folder / "parts/t*in/*.tar";
  EXPECT_EQ(prepare(options).kept, 1);
}

TEST_F(PrepareShards, SeveralZipsAreRead) {
  options.num_classes = 2;
  std::filesystem::create_directories(folder / "zips");
  put_zip("zips/0.zip", {{"cat/1.png", flat_png(1)}, {"dog/1.png", flat_png(2)}});
  put_zip("zips/1.zip", {{"cat/1.png", flat_png(3)}});
  put(folder / "users.csv", "0.zip/cat/1.png,ann\n0.zip/dog/1.png,ann\n1.zip/cat/1.png,ben\n");
  for (const char* source : {"zips", "zips/*.zip", "zips/{0..1}.zip"}) {
    options.source = folder / source;
    EXPECT_EQ(again().format, "zip") << source;
    EXPECT_THAT(values(), ElementsAre(1, 2, 3));
    EXPECT_THAT(labels(), ElementsAre(0, 1, 0));
  }
  options.users = folder / "users.csv";
  options.records_per_user = 2;
  EXPECT_EQ(again().users, 2);
  std::filesystem::remove_all(options.store);
  options.users.clear();
  std::filesystem::rename(folder / "zips/0.zip", folder / "zips/train.zip");
  std::filesystem::rename(folder / "zips/1.zip", folder / "zips/test.zip");
  options.source = folder / "zips";
  EXPECT_THAT(data_error(), HasSubstr("several splits: test, train"));
  put(folder / "0.npz", make_zip({}));
  put(folder / "1.npz", make_zip({}));
  options.source = folder / "*.npz";
  EXPECT_THAT(message_of<UsageError>([&] { prepare(options); }), HasSubstr("name one file"));
}

TEST_F(PrepareShards, UsersNameTheArchiveToo) {
  put_tar("shards/0.tar", {{"1.png", flat_png(1)}, {"1.cls", "1"}});
  put_tar("shards/1.tar", {{"1.png", flat_png(2)}, {"1.cls", "1"}});
  put(folder / "users.csv", "0.tar/1.png,ann\n1.tar/1.png,ben\n");
  options.users = folder / "users.csv";
  EXPECT_EQ(prepare(options).users, 2);
}

class PrepareNumpy : public PrepareArchive {
 protected:
  PrepareNumpy() {
    options.source = folder / "a.npz";
    options.num_classes = 10;
  }
  static std::string images(std::initializer_list<int> values) {
    std::string pixels;
    for (const int value : values) pixels += std::string(16, static_cast<char>(value));
    return make_npy("|u1", "(" + std::to_string(values.size()) + ", 4, 4)", pixels);
  }
  static std::string column(const std::string& bytes) {
    return make_npy("|u1", "(" + std::to_string(bytes.size()) + ", 1)", bytes);
  }
};

TEST_F(PrepareNumpy, MedMnistAsksForTheSplit) {
  put_zip("a.npz", {{"train_images.npy", images({1, 2, 3})},
                    {"train_labels.npy", column("\7\1\2")},
                    {"val_images.npy", images({4})},
                    {"val_labels.npy", column("\5")},
                    {"test_images.npy", images({9})},
                    {"test_labels.npy", column("\6")}});
  EXPECT_THAT(data_error(), AllOf(HasSubstr("test, train, validation"), HasSubstr("a.npz/train")));
  options.source = folder / "a.npz/train";
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.format, "npz");
  EXPECT_THAT(values(), ElementsAre(1, 2, 3));
  EXPECT_THAT(labels(), ElementsAre(7, 1, 2));
  for (const char* part : {"a.npz/val", "a.npz/val_images", "a.npz/validation"}) {
    options.source = folder / part;
    again();
    EXPECT_THAT(values(), ElementsAre(4)) << part;
    EXPECT_THAT(labels(), ElementsAre(5)) << part;
  }
  std::filesystem::remove_all(options.store);
  options.source = folder / "a.npz/tset";
  EXPECT_THAT(data_error(), AllOf(HasSubstr("'tset'"), HasSubstr("val_images")));
}

TEST_F(PrepareNumpy, OtherNames) {
  const std::vector<std::pair<std::string, std::string>> pairs = {{"images", "labels"},
                                                                  {"x", "y"},
                                                                  {"arr_0", "arr_1"},
                                                                  {"data", "target"},
                                                                  {"x_train", "y_train"}};
  for (const auto& [x, y] : pairs) {
    put_zip("a.npz", {{x + ".npy", images({1, 2})},
                      {y + ".npy", make_npy("<i8", "(2,)",
                                            std::string("\3\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0", 16))}});
    again();
    EXPECT_THAT(labels(), ElementsAre(3, 4)) << x;
  }
  std::filesystem::remove_all(options.store);
  put_zip("a.npz", {{"faces.npy", images({1, 2})}, {"who.npy", column("\1\2")}});
  EXPECT_THAT(data_error(), AllOf(HasSubstr("faces, who"), HasSubstr("a.npz/ARRAY")));
  options.source = folder / "a.npz/faces";
  EXPECT_THAT(message_of<UsageError>([&] { prepare(options); }), HasSubstr("set data.labels"));
  options.labels = folder / "a.npz/who";
  again();
  EXPECT_THAT(labels(), ElementsAre(1, 2));
}

TEST_F(PrepareNumpy, SingleArraysColourAndTextLabels) {
  put(folder / "x.npy", make_npy("|u1", "(2, 1, 1, 3)", "abcdef"));
  put(folder / "y.npy",
      make_npy("<U3", "(2,)", std::string("d\0\0\0o\0\0\0g\0\0\0c\0\0\0a\0\0\0t\0\0\0", 24)));
  options.source = folder / "x.npy";
  options.labels = folder / "y.npy";
  options.channels = 3;
  options.num_classes = 2;
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.format, "npy");
  EXPECT_THAT(report.class_names, ElementsAre("cat", "dog"));
  EXPECT_THAT(labels(), ElementsAre(1, 0));
  EXPECT_THAT(RecordStore::open(options.store).pixels(1).subspan(0, 3), ElementsAre('d', 'e', 'f'));
}

TEST_F(PrepareNumpy, WrongLayoutsSayWhatToSave) {
  const auto with = [&](const std::string& array, const std::string& y) {
    put_zip("a.npz", {{"images.npy", array}, {"labels.npy", y}});
    return data_error();
  };
  const std::string one = column("\1");
  EXPECT_THAT(with(make_npy("<f4", "(1, 4, 4)", std::string(64, '\0')), one),
              HasSubstr("astype(numpy.uint8)"));
  EXPECT_THAT(with(make_npy("|u1", "(1, 3, 8, 8)", std::string(192, '\0')), one),
              HasSubstr("transpose(0, 2, 3, 1)"));
  EXPECT_THAT(with(make_npy("|u1", "(1, 8, 8, 8)", std::string(512, '\0')), one),
              HasSubstr("volumes"));
  EXPECT_THAT(with(make_npy("|u1", "(1, 16)", std::string(16, '\0')), one), HasSubstr("reshape"));
  EXPECT_THAT(with(make_npy("|u1", "(8, 8, 3)", std::string(192, '\0')), one),
              HasSubstr("x[None]"));
  EXPECT_THAT(with(make_npy("|u1", "(1, 8, 8, 4)", std::string(256, '\0')), one),
              HasSubstr("expected NxHxW"));
  EXPECT_THAT(with(images({1}), make_npy("|u1", "(1, 14)", std::string(14, '\1'))),
              HasSubstr("several labels"));
  EXPECT_THAT(with(images({1}), make_npy("<f8", "(1,)", std::string(8, '\0'))),
              HasSubstr("expected integers"));
  EXPECT_THAT(with(images({1}), column("\1\2")), HasSubstr("2 labels"));
  EXPECT_THAT(with(images({1}), column("\x0A")), HasSubstr("label 10"));
  EXPECT_THAT(with("no array", one), HasSubstr("a.npz:images.npy"));
  put_zip("a.npz", {{"notes.txt", "x"}});
  EXPECT_THAT(data_error(), HasSubstr("no numpy array"));
}

}  // namespace
}  // namespace sfumato
