#include <algorithm>

#include "data/label_table.h"
#include "data/prepare_fixture.h"
#include "data/split_names.h"
#include "io/zip_bytes.h"
#include "sfumato/io/clutter.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using namespace test;

class PrepareLayout : public Prepare {
 protected:
  PrepareLayout() { set_classes(2); }
  void set_classes(std::int64_t count) {
    options.num_classes = count;
    options.accept_class_names = count > 0;
    options.merge_folders = count == 0;
    options.allow_empty_classes.clear();
    if (count > 0) options.allow_empty_classes = {"*"};
  }
  /// The source as a tar and a zip beside it.
  std::vector<std::filesystem::path> packed() {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(options.source))
      if (entry.is_regular_file()) files.push_back(entry.path());
    std::ranges::sort(files);
    TarWriter tar(folder / "a.tar");
    std::vector<ZipMember> members;
    for (const auto& file : files) {
      const std::string name = file.lexically_relative(options.source).generic_string();
      tar.add(name, get(file));
      members.push_back({.name = name, .content = get(file)});
    }
    tar.finish();
    put(folder / "a.zip", make_zip(members));
    return {folder / "a.tar", folder / "a.zip"};
  }
};

TEST(Clutter, IsWhatSystemsLeave) {
  for (const char* path : {"__MACOSX", "__MACOSX/cat/._1.png", "cat/@eaDir/1.png", "cat/.DS_Store",
                           "Thumbs.db", "cat/thumbs.db", "desktop.ini", "cat/._1.png"})
    EXPECT_TRUE(is_clutter(path)) << path;
  for (const char* path : {"cat/1.png", "MACOSX/1.png", "_1.png", "thumbs/1.png", "a._b.png", ""})
    EXPECT_FALSE(is_clutter(path)) << path;
  EXPECT_TRUE(is_hidden("cat/.git/1.png"));
  EXPECT_FALSE(is_hidden("cat/1.png"));
}

TEST(Splits, AreFoundByWhatNamesShare) {
  const auto find_splits = [](const std::vector<std::string>& folders) {
    SplitGuard guard;
    for (const std::string& name : folders) guard.add(name + "/1.png");
    const auto found = guard.found();
    return found.empty() ? std::vector<std::string>{} : found.at(0).splits;
  };
  EXPECT_THAT(find_splits({"test", "train"}), ElementsAre("test", "train"));
  EXPECT_THAT(find_splits({"Training", "Testing", "notes"}), ElementsAre("Testing", "Training"));
  EXPECT_THAT(find_splits({"seg_train", "seg_test", "seg_pred"}),
              ElementsAre("seg_test", "seg_train"));
  EXPECT_THAT(find_splits({"train2017", "val2017"}), ElementsAre("train2017", "val2017"));
  EXPECT_THAT(find_splits({"steam_train", "test_tube"}), ElementsAre());
  EXPECT_THAT(find_splits({"train", "bus", "bicycle"}), ElementsAre());
  EXPECT_THAT(find_splits({"train", "train_2"}), ElementsAre());
}

TEST_F(PrepareLayout, ClutterIsNeverAClassNorAnImageNorCounted) {
  put_image("cat/1.png", flat_png(1));
  put_image("dog/1.png", flat_png(2));
  put_image("__MACOSX/cat/._1.png", "resource fork");
  put_image("__MACOSX/x.png", flat_png(9));
  put_image("@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "thumbnail");
  put_image("cat/@eaDir/1.png", flat_png(9));
  put_image("cat/.DS_Store", "x");
  put_image("cat/._1.png", "x");
  put_image("dog/Thumbs.db", "x");
  put_image("dog/desktop.ini", "x");
  std::vector<std::filesystem::path> sources = packed();
  sources.push_back(options.source);
  for (const auto& source : sources) {
    options.source = source;
    for (const int classes : {2, 0}) {
      set_classes(classes);
      const PrepareReport report = again();
      EXPECT_EQ(report.found, 2) << source;
      EXPECT_EQ(report.other_files, 0) << source;
      if (classes == 0) continue;
      EXPECT_THAT(report.class_names, ElementsAre("cat", "dog")) << source;
    }
  }
}

TEST_F(PrepareLayout, SplitsAreAskedAbout) {
  for (const char* part : {"train", "test"})
    for (const char* name : {"cat", "dog"})
      put_image(std::string(part) + "/" + name + "/1.png", flat_png(part[1]));
  std::vector<std::filesystem::path> sources = packed();
  sources.push_back(options.source);
  for (const auto& source : sources)
    for (const int classes : {0, 1, 2}) {
      options.source = source;
      set_classes(classes);
      EXPECT_THAT(data_error(), AllOf(HasSubstr("test, train"),
                                      HasSubstr("data.source=" + (source / "train").string())))
          << source << classes;
      if (classes == 1) continue;
      options.source = source / "train";
      EXPECT_EQ(again().found, 2) << source << classes;
      std::filesystem::remove_all(options.store);
    }
}

TEST_F(PrepareLayout, SplitsBelowOneFolderAndClassesThatAreCalledSo) {
  put_image("photos/training/1.png", flat_png(1));
  put_image("photos/validation/1.png", flat_png(2));
  set_classes(0);
  EXPECT_THAT(data_error(), HasSubstr("source/photos/training"));
  options.source = folder / "classes";
  put_image("train/1.png", flat_png(1));
  put_image("bus/1.png", flat_png(2));
  set_classes(2);
  EXPECT_EQ(prepare(options).kept, 2);
  std::filesystem::remove_all(options.store);
  options.source = folder / "odd";
  put_image("train/1.png", flat_png(1));
  put_image("test/1.png", flat_png(2));
  EXPECT_THAT(data_error(), HasSubstr("data.class_names"));
}

TEST_F(PrepareLayout, SplitsWithinClassesAreAskedAbout) {
  for (const char* name : {"a", "b"})
    for (const char* part : {"train", "test"})
      put_image(std::string(name) + "/" + part + "/1.png", flat_png(name[0] + part[1]));
  put_image("c/1.png", flat_png(1));
  std::vector<std::filesystem::path> sources = packed();
  sources.push_back(options.source);
  for (const auto& source : sources)
    for (const int classes : {0, 3}) {
      options.source = source;
      set_classes(classes);
      EXPECT_THAT(data_error(), AllOf(HasSubstr((source / "a").string()), HasSubstr("test, train"),
                                      HasSubstr("move the images of one split apart"),
                                      HasSubstr("'a/train' becomes 'train/a'")))
          << source << classes;
      if (classes > 0) {
        EXPECT_THAT(data_error(), HasSubstr("(and 1 more)"));
        // The names of the splits are not those of classes.
        options.class_names = {"a", "b", "c", "train", "test"};
        options.num_classes = 5;
        EXPECT_THAT(data_error(), HasSubstr("test, train"));
        options.class_names.clear();
      }
    }
  std::filesystem::remove_all(options.source = folder / "source");
  put_image("cat/2020/val2017/1.png", flat_png(1));
  put_image("cat/2020/train2017/1.png", flat_png(2));
  put_image("dog/training/1.png", flat_png(3));
  set_classes(2);
  EXPECT_THAT(data_error(), AllOf(HasSubstr("source/cat/2020' holds"), HasSubstr("train2017")));
  std::filesystem::remove_all(options.source / "cat/2020/val2017");
  EXPECT_EQ(prepare(options).kept, 2);  // one split of each
}

TEST(Splits, AreFoundInAnyFolder) {
  SplitGuard guard;
  EXPECT_FALSE(guard.add("1.png"));
  EXPECT_FALSE(guard.add("x/y/1.png"));
  EXPECT_TRUE(guard.add("x/y/train_a/1.png"));
  EXPECT_FALSE(guard.add("x/y/train_a/2.png"));
  EXPECT_TRUE(guard.add("x/y/test_b/1.png"));
  EXPECT_TRUE(guard.found().empty());
  guard.add("x/y/test_a/z/1.png");
  ASSERT_EQ(guard.found().size(), 1u);
  EXPECT_EQ(guard.found()[0].parent, "x/y");
  EXPECT_THAT(guard.found()[0].splits, ElementsAre("test_a", "train_a"));
  EXPECT_FALSE(guard.found()[0].holds_all);
  guard.add("x/yy/dev/1.png");
  guard.add("x/train/eval/1.png");
  EXPECT_EQ(guard.found().size(), 1u);
  SplitGuard below;
  below.add("w/v/train/1.png");
  below.add("w/v/test/q/1.png");
  EXPECT_TRUE(below.found().at(0).holds_all);
  // A set with more folders than names are kept of, as one for each of many people.
  for (int i = 0; i < 1000; ++i) below.add("w/v/train-" + std::to_string(i) + "/1.png");
  EXPECT_LE(below.found().at(0).splits.size(), 12u);
}

/// Classes that nobody has asked for are not lost without a word.
TEST_F(PrepareLayout, FoldersThatMayBeClassesAreAskedAbout) {
  const auto answer = [&](const std::vector<std::pair<std::string, std::string>>& files) {
    options.source = folder / "source";
    std::filesystem::remove_all(options.source);
    for (const auto& [name, bytes] : files) put_image(name, bytes);
    std::vector<std::filesystem::path> sources = packed();
    sources.push_back(folder / "source");
    std::set<std::string> answers;
    for (const auto& source : sources) {
      options.source = source;
      std::filesystem::remove_all(options.store);
      std::string text = message_of<UsageError>([&] { prepare(options); });
      EXPECT_EQ(std::filesystem::exists(options.store), text == "no error");
      for (std::size_t at; (at = text.find(source.string())) != std::string::npos;)
        text.replace(at, source.string().size(), "SOURCE");
      answers.insert(text);
    }
    EXPECT_EQ(answers.size(), 1U) << "containers differ";
    return *answers.begin();
  };
  const std::string png = flat_png(1);
  set_classes(0);
  options.merge_folders = false;
  const auto asked = AllOf(HasSubstr("'SOURCE' lie in 3 folders ('ant', 'bee', 'cat')"),
                           HasSubstr("data.num_classes=3"), HasSubstr("data.merge_folders=true"));
  EXPECT_THAT(answer({{"ant/1.png", png}, {"bee/deep/1.png", png}, {"cat/1.png", png}}), asked);
  EXPECT_THAT(
      answer({{"all/x/1.png", png}, {"all/y/1.png", png}}),
      AllOf(HasSubstr("'SOURCE/all' lie in 2 folders"), HasSubstr("data.source=SOURCE/all")));
  EXPECT_EQ(answer({{"ant/1.png", png}, {"bee/1.png", png}, {"top.png", png}}), "no error");
  EXPECT_EQ(answer({{"ant/1.png", png}, {"notes/1.txt", "x"}}), "no error");
  EXPECT_EQ(answer({{"train/1.png", png}, {"train/2.png", png}}), "no error");
  options.merge_folders = true;
  EXPECT_EQ(answer({{"ant/1.png", png}, {"bee/1.png", png}}), "no error");
  options.num_classes = 1;
  EXPECT_EQ(answer({{"ant/1.png", png}, {"bee/1.png", png}}), "no error");
  options.num_classes = 2;
  EXPECT_THAT(answer({{"ant/1.png", png}, {"bee/1.png", png}}), HasSubstr("leave one of them out"));
}

TEST_F(PrepareLayout, UnreadFilesAreListedByExtension) {
  put_image("cat/1.png", flat_png(1));
  put_image("cat/a.XCF", "x");
  put_image("cat/b.xcf", "x");
  put_image("dog/c.heic", "x");
  put_image("dog/README", "x");
  put_image("dog/strange.\xFF\xFE", "x");
  put_image(".hidden/1.png", flat_png(2));
  set_classes(0);
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.other_files, 6);
  EXPECT_THAT(report.unread_files,
              ElementsAre(Pair("(hidden)", 1), Pair("(no extension)", 1), Pair("(other)", 1),
                          Pair(".heic", 1), Pair(".xcf", 2)));
  EXPECT_EQ(unread_files_text(report.unread_files),
            "1 (hidden), 1 (no extension), 1 (other), 1 .heic, 2 .xcf");
  std::filesystem::remove_all(options.store);
  std::filesystem::remove(options.source / "cat/1.png");
  EXPECT_THAT(data_error(), AllOf(HasSubstr("no images"), HasSubstr("2 .xcf")));
}

class PrepareMetadata : public PrepareLayout {
 protected:
  void put_images() {
    put_image("1.png", flat_png(1));
    put_image("sub/2.png", flat_png(2));
    put_image("3.png", flat_png(3));
  }
  void put_metadata(const std::string& text) { put_image("metadata.csv", text); }
};

TEST_F(PrepareMetadata, NumbersAndNamesInEveryContainer) {
  put_images();
  put_metadata("file_name,label\n1.png,1\nsub/2.png,0\n3.png,1\n");
  std::vector<std::filesystem::path> sources = packed();
  sources.push_back(options.source);
  const auto origin = options.source;
  for (const auto& source : sources) {
    options.source = source;
    EXPECT_EQ(again().other_files, 0);
    std::vector<std::pair<int, int>> found;
    const auto v = values(), l = labels();
    for (std::size_t i = 0; i < v.size(); ++i) found.emplace_back(v[i], l[i]);
    std::ranges::sort(found);
    EXPECT_THAT(found, ElementsAre(Pair(1, 1), Pair(2, 0), Pair(3, 1))) << source;
  }
  options.source = origin;
  put_metadata(
      "\xEF\xBB\xBF"
      "file_name , kind,note\r\n\"1.png\",\"dog, old\",\"a\nb\"\r\n"
      "./sub/2.png, cat ,\r\n3.png,\"dog, old\",\r\n");
  options.label_column = "kind";
  EXPECT_THAT(again().class_names, ElementsAre("cat", "dog, old"));
  EXPECT_THAT(labels(), ElementsAre(1, 1, 0));
}

TEST_F(PrepareMetadata, JsonLinesAndFilesInSubFolders) {
  put_images();
  put_image("metadata.jsonl",
            "{\"file_name\": \"1.png\", \"label\": 1}\r\n\n"
            "{\"file_name\": \"3.png\", \"label\": 0.0}");
  put_image("sub/metadata.csv", "label,file_name\n1,2.png\n");
  prepare(options);
  EXPECT_THAT(labels(), ElementsAre(1, 0, 1));
  std::filesystem::remove_all(options.store);
  put_image("sub/metadata.csv", "group,file_name\n1,2.png\n");
  EXPECT_THAT(data_error(), AllOf(HasSubstr("sub/metadata.csv"), HasSubstr("no column 'label'")));
  put_image("sub/metadata.csv", "label,file_name\n1,2.png\n");
  put_image("sub/metadata.jsonl", "{}");
  EXPECT_THAT(data_error(), HasSubstr("lie in one folder"));
}

TEST_F(PrepareMetadata, RowsAndImagesMustMatch) {
  put_images();
  put_metadata("file_name,label\n1.png,1\n");
  EXPECT_THAT(data_error(),
              AllOf(HasSubstr("2 images have no row"), HasSubstr("3.png, sub/2.png")));
  put_metadata("file_name,label\n1.png,1\n3.png,0\nsub/2.png,1\ngone.png,1\n");
  EXPECT_THAT(data_error(), HasSubstr("metadata.csv:5 names no image"));
  put_metadata("file_name,label\n1.png,1\n3.png,0\nsub/2.png,1\n1.png,0\n");
  EXPECT_THAT(data_error(), HasSubstr("one image two classes"));
  put_metadata("file_name,label\n1.png,1\n3.png,0\nsub/2.png,1\n1.png,1\n");
  EXPECT_EQ(prepare(options).kept, 3);
}

TEST_F(PrepareMetadata, FilesThatAreRefused) {
  put_images();
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"", "empty"},
      {"name,label\n1.png,1\n", "no column 'file_name'"},
      {"file_name;label\n1.png;1\n", "semicolons"},
      {std::string("\xFF\xFE"
                   "f\0",
                   4),
       "UTF-16"},
      {"file_name,text\n1.png,a\n", "data.label_column (it has text)"},
      {"file_name,label,label\n1.png,1,1\n", "two columns"},
      {"file_name,label\n1.png\n", "metadata.csv:2: 1 fields"},
      {"file_name,label\n1.png,\n", "metadata.csv:2: '1.png': the label is empty"},
      {"file_name,label\n1.png,\"[0, 2]\"\n", "several labels"},
      {"file_name,label\n../1.png,1\n", "no path below"},
      {"file_name,label\n/1.png,1\n", "no path below"},
      {"file_name,label\n,1\n", "no path below"},
      {"file_name,label\n\"1.png,1\n", "never closed"}};
  for (const auto& [text, expected] : wrong) {
    put_metadata(text);
    EXPECT_THAT(data_error(), HasSubstr(expected)) << text;
  }
  std::filesystem::remove(options.source / "metadata.csv");
  options.label_column = "kind";
  EXPECT_THAT(data_error(), HasSubstr("data.label_column=kind"));
  options.label_column = "label";
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"{\"file_name\": \"1.png\", \"label\": [1, 2]}",
            "metadata.jsonl:1: the label is a list"},
           {"{\"file_name\": \"1.png\", \"label\": null}", "the label is empty"},
           {"\n{\"label\": 1}", "metadata.jsonl:2: no text 'file_name'"},
           {"[1]", "no JSON object"},
           {"{\"file_name\": ", "metadata.jsonl:1"}}) {
    put_image("metadata.jsonl", text);
    EXPECT_THAT(data_error(), HasSubstr(expected)) << text;
  }
}

/// Whether "0" is a number or a name must not hang on another image.
TEST_F(PrepareMetadata, OneImageDoesNotTurnNumbersIntoNames) {
  const auto numbers = [](const std::vector<std::string>& names, const std::string& text) {
    LabelTexts texts(names);
    texts.add(text, "x");
    return texts.classes_found().names.empty();
  };
  EXPECT_TRUE(numbers({}, "0"));
  EXPECT_TRUE(numbers({}, "-7.00"));
  EXPECT_FALSE(numbers({}, "07"));
  EXPECT_FALSE(numbers({}, "cat"));
  EXPECT_TRUE(numbers({"0", "1", "2"}, "0"));
  EXPECT_TRUE(numbers({"cat", "1", "dog"}, "0"));
  EXPECT_FALSE(numbers({"1", "0", "cat"}, "0"));
  EXPECT_FALSE(numbers({"10", "20"}, "1"));
}

TEST_F(PrepareMetadata, WithoutClassesLabelsAreNotRead) {
  put_images();
  put_metadata("nothing that could be read as labels");
  set_classes(0);
  EXPECT_THAT(prepare(options).unread_files, ElementsAre(Pair(".csv", 1)));
}

TEST_F(PrepareMetadata, AReleasedCorpusIsItsImages) {
  put_image("images/0/000000.png", flat_png(1));
  put_image("images/1/000000.png", flat_png(2));
  put_image("contact_sheet.png", flat_png(99));
  put_image("privacy_card.json", "{}");
  put_metadata("file_name,label\nimages/0/000000.png,0\nimages/1/000000.png,1\n");
  prepare(options);
  EXPECT_THAT(values(), ElementsAre(1, 2));
  EXPECT_THAT(labels(), ElementsAre(0, 1));
  set_classes(0);
  EXPECT_EQ(again().kept, 2);
}

}  // namespace
}  // namespace sfumato
