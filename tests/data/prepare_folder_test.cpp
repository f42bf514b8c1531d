#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "data/prepare_fixture.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

class PrepareFolder : public Prepare {
 protected:
  void put_pets() {
    put_image("dog/b.png", flat_png(4));
    put_image("dog/a.png", flat_png(3));
    put_image("cat/2.PNG", flat_png(2));
    put_image("cat/10.png", flat_png(1));
    put_image("cat/more/x.png", flat_png(5));
    put_image("cat/notes.txt", "not looked at");
    put_image("cat/.hidden.png", "not looked at");
    options.class_names = {"cat", "dog"};
  }
};

TEST_F(PrepareFolder, ClassesAreFolders) {
  put_pets();
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.format, "folder");
  EXPECT_EQ(report.found, 5);
  EXPECT_EQ(report.kept, 5);
  EXPECT_EQ(report.other_files, 2);
  EXPECT_EQ(report.unit, "one image");
  EXPECT_THAT(values(), ElementsAre(1, 2, 5, 3, 4));
  EXPECT_THAT(labels(), ElementsAre(0, 0, 0, 1, 1));
  const RecordStore store = RecordStore::open(options.store);
  EXPECT_THAT(store.class_names(), ElementsAre("cat", "dog"));
  EXPECT_EQ(store.manifest_hash(), report.manifest_hash);
  EXPECT_NO_THROW(store.verify_checksums());
}

// Whoever takes the images as public ones must see what drew them, wherever they were copied from.
TEST_F(PrepareFolder, TheManifestKeepsTheCardsThatSpeakOfTheImages) {
  put_image("corpus/images/a/1.png", flat_png(1));
  const auto root = options.source;
  const std::string card = R"({"status": "private", "stages": []})";
  put(root / "corpus/privacy_card.json", card);
  const auto cards = [&] {
    again();
    return store_preparation(options.store).at("cards");
  };
  for (const char* source :
       {"", "corpus", "corpus/images", "corpus/images/a", "corpus/images/a/"}) {
    options.source = root / source;
    ASSERT_EQ(cards().size(), 1u) << source;
    EXPECT_EQ(cards()[0]["text"], card);
    EXPECT_EQ(cards()[0]["sha256"], sha256_hex(card));
  }
  std::filesystem::create_directory_symlink(root / "corpus/images/a", root / "link");
  options.source = root / "link";
  EXPECT_EQ(cards().size(), 1u) << "through links";
  put(root / "corpus/privacy_card.json", "{");
  EXPECT_TRUE(cards().at(0).at("text").is_null());
  std::filesystem::remove(root / "corpus/privacy_card.json");
  EXPECT_TRUE(cards().is_array() && cards().empty());
}

TEST_F(PrepareFolder, FlatFolderAndUnconditionalTree) {
  put_image("a.png", flat_png(1));
  put_image("b.jpg", grey_jpeg());
  prepare(options);
  EXPECT_THAT(values(), ElementsAre(1, ::testing::AllOf(::testing::Ge(30), ::testing::Le(210))));
  std::filesystem::remove_all(options.store);
  options.num_classes = 1;  // a flat folder is one class
  prepare(options);
  EXPECT_THAT(labels(), ElementsAre(0, 0));
  std::filesystem::remove_all(options.store);
  options.num_classes = 0;
  put_image("deep/er/c.png", flat_png(9));
  prepare(options);
  EXPECT_EQ(RecordStore::open(options.store).count(), 3);
  EXPECT_EQ(RecordStore::open(options.store).num_classes(), 0);
}

TEST_F(PrepareFolder, CropsResizesAndConverts) {
  options.image_size = 8;
  options.channels = 3;
  put_image("c.jpg", color_jpeg());  // 32 x 16: the middle 16 x 16 is kept
  put_image("turned.jpg", with_exif(color_jpeg(), 6));
  put_image("grey.png", flat_png(77));
  prepare(options);
  const RecordStore store = RecordStore::open(options.store);
  const auto at = [&](int record, int y, int x, int c) {
    return int{store.pixels(record)[(y * 8 + x) * 3 + c]};
  };
  EXPECT_GT(at(0, 1, 1, 0), 240);  // red
  EXPECT_LT(at(0, 1, 1, 2), 15);
  EXPECT_GT(at(0, 1, 6, 2), 240);  // blue
  EXPECT_EQ(at(1, 3, 3, 0), 77);   // grey.png sorts before turned.jpg
  EXPECT_EQ(at(1, 3, 3, 2), 77);
  EXPECT_GT(at(2, 1, 1, 1), 240);  // upright: green at the top left
  EXPECT_LT(at(2, 1, 1, 0), 15);
}

TEST_F(PrepareFolder, MetadataDoesNotSurvive) {
  const std::string note = png_chunk("tEXt", std::string("Comment\0secret place", 20));
  put_image("a.png", make_png(4, 4, 8, 0, std::vector<std::string>(4, "abcd"), note));
  put_image("b.jpg", with_exif(grey_jpeg(), 6));
  prepare(options);
  for (const auto& entry : std::filesystem::directory_iterator(options.store)) {
    const std::string bytes = get(entry.path());
    for (const char* trace : {"secret", "CAM", "Exif", "a.png", "b.jpg"})
      EXPECT_EQ(bytes.find(trace), std::string::npos) << trace << " in " << entry.path();
  }
}

TEST_F(PrepareFolder, ExactDuplicatesAreDroppedAndLabelConflictsCounted) {
  put_image("cat/1.png", flat_png(1));
  put_image("cat/2.png", flat_png(1));  // other bytes, same pixels
  put_image("cat/3.png", make_png(4, 4, 8, 0, std::vector<std::string>(4, "\1\1\1\1"),
                                  png_chunk("tEXt", std::string("a\0b", 3))));
  put_image("cat/4.png", flat_png(2));
  put_image("dog/1.png", flat_png(1));  // the same pixels, but a dog
  put_image("dog/2.png", flat_png(1));
  options.class_names = {"cat", "dog"};
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.duplicates, 3);
  EXPECT_EQ(report.label_conflicts, 1);
  EXPECT_THAT(values(), ElementsAre(1, 2, 1));
  EXPECT_THAT(labels(), ElementsAre(0, 0, 1));
  std::filesystem::remove_all(options.store);
  options.deduplicate = false;
  EXPECT_EQ(prepare(options).kept, 6);
  std::filesystem::remove_all(options.store);
  options.deduplicate = true;
  options.class_names.clear();  // without labels there is no conflict
  options.merge_folders = true;
  EXPECT_EQ(prepare(options).duplicates, 4);
}

/// The stability that "one image" relies on: one file less changes the set of records by one.
TEST_F(PrepareFolder, RemovingOneFileChangesAtMostOneRecord) {
  const std::vector<std::pair<std::string, int>> files = {{"cat/1.png", 1}, {"cat/2.png", 1},
                                                          {"cat/3.png", 2}, {"dog/1.png", 1},
                                                          {"dog/2.png", 2}, {"dog/3.png", 3}};
  options.class_names = {"cat", "dog"};
  const auto records = [&] {
    std::filesystem::remove_all(options.store);
    prepare(options);
    std::vector<std::pair<int, int>> result;
    const auto v = values(), l = labels();
    for (std::size_t i = 0; i < v.size(); ++i) result.emplace_back(v[i], l[i]);
    std::ranges::sort(result);
    return result;
  };
  for (const auto& [name, value] : files) put_image(name, flat_png(value));
  const auto all = records();
  for (const auto& [name, value] : files) {
    std::filesystem::remove(options.source / name);
    const auto without = records();
    std::vector<std::pair<int, int>> difference;
    std::ranges::set_symmetric_difference(all, without, std::back_inserter(difference));
    EXPECT_LE(difference.size(), 1u) << name;
    put_image(name, flat_png(value));
  }
}

TEST_F(PrepareFolder, UnreadableFileIsNamedOrSkipped) {
  put_image("a.png", flat_png(1));
  put_image("b.png", flat_png(2).substr(0, 60));
  put_image("c.jpg", "no picture at all");
  put_image("d.png", flat_png(3));
  const std::string message = data_error();
  EXPECT_THAT(message, HasSubstr("source/b.png"));
  EXPECT_THAT(message, HasSubstr("broken PNG"));
  EXPECT_THAT(message, HasSubstr("data.skip_unreadable=true"));
  options.skip_unreadable = true;
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.unreadable, 2);
  EXPECT_EQ(report.found, 4);
  EXPECT_THAT(values(), ElementsAre(1, 3));
}

TEST_F(PrepareFolder, EmptyFoldersAndWrongPlaces) {
  std::filesystem::create_directories(options.source);
  EXPECT_THAT(data_error(), HasSubstr("no images in"));
  put_image("readme.txt", "x");
  EXPECT_THAT(data_error(), HasSubstr("1 other files"));
  options.skip_unreadable = true;
  put_image("a.png", "x");
  EXPECT_THAT(data_error(), HasSubstr("none of the 1 images"));
  options.source = folder / "nowhere";
  EXPECT_THAT(data_error(), HasSubstr("does not exist"));
  options.source.clear();
  EXPECT_THROW(prepare(options), UsageError);
}

TEST_F(PrepareFolder, LabelsOutOfRangeAndWrongTrees) {
  put_pets();
  put_image("eel/1.png", flat_png(9));
  const std::string message = data_error();
  EXPECT_THAT(message, HasSubstr("the class 'eel', which is not in the public list"));
  put_image("stray.png", flat_png(8));
  options.class_names.push_back("eel");
  EXPECT_THAT(data_error(), HasSubstr("stray.png"));
  options.source = folder / "split";
  put_image("train/cat/1.png", flat_png(1));
  put_image("test/cat/1.png", flat_png(1));
  EXPECT_THAT(data_error(), HasSubstr("split/train"));
}

TEST_F(PrepareFolder, ExistingStoreIsRefusedAndUntouched) {
  put_image("a.png", flat_png(1));
  std::filesystem::create_directories(options.store);
  put(options.store / "precious", "mine");
  EXPECT_THAT(message_of<UsageError>([&] { prepare(options); }), HasSubstr("exists already"));
  EXPECT_EQ(get(options.store / "precious"), "mine");
}

TEST_F(PrepareFolder, StopSignalLeavesNothing) {
  put_image("a.png", flat_png(1));
  set_stop_requested(true);
  EXPECT_THROW(prepare(options), Interrupted);
  set_stop_requested(false);
  EXPECT_FALSE(std::filesystem::exists(options.store));
  EXPECT_FALSE(std::filesystem::exists(folder / ".store.partial"));
}

TEST_F(PrepareFolder, LinkThatPointsUpwardsIsAnError) {
  put_image("cat/a.png", flat_png(1));
  std::filesystem::create_directory_symlink("..", options.source / "cat/up");
  EXPECT_THAT(data_error(), HasSubstr("nested"));
}

TEST_F(PrepareFolder, SameStoreForAnyNumberOfThreads) {
  for (int i = 0; i < 300; ++i)
    put_image("class" + std::to_string(i % 3) + "/" + std::to_string(i) + ".png",
              i % 50 == 7 ? "broken" : flat_png(i % 200));
  options.class_names = {"class0", "class1", "class2"};
  options.skip_unreadable = true;
  std::string hash;
  for (const int threads : {1, 2, 5}) {
    options.threads = threads;
    options.store = folder / ("store" + std::to_string(threads));
    const std::string this_hash = prepare(options).manifest_hash;
    if (hash.empty()) hash = this_hash;
    EXPECT_EQ(this_hash, hash) << threads;
  }
}

TEST_F(PrepareFolder, UsersAreBounded) {
  std::string csv = "file,user\n";
  for (int i = 0; i < 12; ++i) {
    const std::string name = "c" + std::to_string(i % 2) + "/" + std::to_string(i) + ".png";
    put_image(name, flat_png(i));
    csv += name + ",user" + std::to_string(i / 5) + "\n";  // 5, 5 and 2 images
  }
  put(folder / "users.csv", csv);
  options.users = folder / "users.csv";
  options.records_per_user = 3;
  options.class_names = {"c0", "c1"};
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.kept, 8);
  EXPECT_EQ(report.over_user_bound, 4);
  EXPECT_EQ(report.users, 3);
  EXPECT_EQ(
      kept_by_bound_text(report.kept_by_bound),
      "1 keeps 3 of 12 (9 dropped), 2: 6 (6 dropped), 3: 8 (4 dropped), 4: 10 (2 dropped), 8: 12");
  EXPECT_EQ(read_file(options.store / "manifest.json").find("kept_by_bound"), std::string::npos);
  EXPECT_EQ(report.unit, "one user, at most 3 images");
  const RecordStore store = RecordStore::open(options.store);
  EXPECT_EQ(store.records_per_unit(), 3);
  std::vector<int> per_user(3);
  for (std::int64_t i = 0; i < store.count(); ++i) {
    EXPECT_EQ(store.user(i), store.pixels(i)[0] / 5);
    ++per_user[store.user(i)];
  }
  EXPECT_THAT(per_user, ElementsAre(3, 3, 2));
}

TEST_F(PrepareFolder, DuplicatesOfAnotherUserStay) {
  // Dropping them would make one user's records depend on another's.
  put_image("1.png", flat_png(1));
  put_image("2.png", flat_png(1));
  put_image("3.png", flat_png(1));
  put(folder / "users.csv", "1.png,Ann\n2.png,Bob\n3.png,Bob\n");
  options.users = folder / "users.csv";
  options.records_per_user = 2;
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.duplicates, 1);
  EXPECT_EQ(report.kept, 2);
}

TEST_F(PrepareFolder, FileMissingInTheCsvIsAnError) {
  put_image("a.png", flat_png(1));
  put_image("b.png", flat_png(2));
  put(folder / "users.csv", "a.png,Ann\n");
  options.users = folder / "users.csv";
  EXPECT_THAT(data_error(), HasSubstr("'b.png'"));
}

TEST_F(PrepareFolder, FileInTheCsvThatIsNotThereIsAnError) {
  put_image("a.png", flat_png(1));
  put(folder / "users.csv", "user,file\nAnn,a.png\nAnn,b.png\n");
  options.users = folder / "users.csv";
  EXPECT_THAT(data_error(), HasSubstr("users.csv:3: 'b.png'; 1 file is listed"));
}

class PrepareTar : public PrepareFolder {
 protected:
  void pack(const std::string& inside, const std::string& name, bool compressed) {
    TarWriter writer(folder / "plain.tar");
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(options.source))
      if (entry.is_regular_file()) files.push_back(entry.path());
    std::ranges::sort(files);
    for (const auto& file : files)
      writer.add(inside + file.lexically_relative(options.source).generic_string(), get(file));
    writer.finish();
    const std::string bytes = get(folder / "plain.tar");
    put(folder / name, compressed ? gzip(bytes) : bytes);
  }
};

TEST_F(PrepareTar, SameRecordsAsTheFolder) {
  put_pets();
  prepare(options);
  const std::string records = get(options.store / "records.bin");
  const std::string classes = get(options.store / "labels.bin");
  for (const bool compressed : {false, true}) {
    // The name says nothing; the content does.
    pack("", "pack", compressed);
    PrepareOptions packed = options;
    packed.source = folder / "pack";
    packed.store = folder / ("store_tar" + std::to_string(compressed));
    if (compressed) packed.format = SourceFormat::kTar;
    const PrepareReport report = prepare(packed);
    EXPECT_EQ(report.format, "tar");
    EXPECT_EQ(report.other_files, 2);
    EXPECT_EQ(get(packed.store / "records.bin"), records);
    EXPECT_EQ(get(packed.store / "labels.bin"), classes);
    EXPECT_THAT(report.class_names, ElementsAre("cat", "dog"));
  }
}

TEST_F(PrepareTar, FolderInsideTheArchive) {
  put_pets();
  prepare(options);
  const std::string records = get(options.store / "records.bin");
  std::filesystem::remove_all(options.store);
  put(folder / "users.csv",
      "cat/10.png,a\ncat/2.PNG,b\ncat/more/x.png,c\ndog/a.png,d\ndog/b.png,e\n");
  pack("data/train/", "pets.tar.gz", true);
  options.source = folder / "pets.tar.gz";
  EXPECT_THAT(data_error(), HasSubstr("pets.tar.gz/data"));
  options.source = folder / "pets.tar.gz/data/train/";
  options.users = folder / "users.csv";
  EXPECT_EQ(prepare(options).kept, 5);
  EXPECT_EQ(get(options.store / "records.bin"), records);
  std::filesystem::remove_all(options.store);
  options.source = folder / "pets.tar.gz/elsewhere";
  EXPECT_THAT(data_error(), HasSubstr("no images"));
}

TEST_F(PrepareTar, TruncatedArchiveAndBrokenMember) {
  put_pets();
  put_image("dog/c.png", "broken");
  pack("", "pets.tar", false);
  options.source = folder / "pets.tar";
  EXPECT_THAT(data_error(), HasSubstr("pets.tar:dog/c.png"));
  std::filesystem::resize_file(options.source, 2000);
  options.skip_unreadable = true;  // it forgives images, not archives
  EXPECT_THAT(data_error(), HasSubstr("truncated"));
}

}  // namespace
}  // namespace sfumato
