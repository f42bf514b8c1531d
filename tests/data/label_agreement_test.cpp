// One label means one class, whatever file says it.
#include <algorithm>
#include <array>

#include "data/class_numbers.h"
#include "data/prepare_fixture.h"
#include "io/npy_bytes.h"
#include "io/zip_bytes.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

using Files = std::vector<std::pair<std::string, std::string>>;
using Records = std::vector<std::pair<int, int>>;

class LabelAgreement : public Prepare {
 protected:
  LabelAgreement() { options.allow_empty_classes = {"*"}; }

  void start_anew() {
    std::filesystem::remove_all(options.source);
    std::filesystem::remove_all(options.store);
    options.source = folder / "source";
    options.labels.clear();
  }
  void put_folder(const Files& files) {
    start_anew();
    for (const auto& [name, content] : files) put_image(name, content);
  }
  void put_tar(const Files& files) {
    start_anew();
    TarWriter writer(folder / "a.tar");
    for (const auto& [name, content] : files) writer.add(name, content);
    writer.finish();
    options.source = folder / "a.tar";
  }
  void put_zip(const Files& files, const std::string& name = "a.zip") {
    start_anew();
    std::vector<ZipMember> members;
    for (const auto& [member, content] : files)
      members.push_back({.name = member, .content = content});
    put(folder / name, make_zip(members));
    options.source = folder / name;
  }
  /// Value and label of each record, in the order of the values.
  Records records() {
    std::filesystem::remove_all(options.store);
    prepare(options);
    Records result;
    const auto v = values(), l = labels();
    for (std::size_t i = 0; i < v.size(); ++i) result.emplace_back(v[i], l[i]);
    std::ranges::sort(result);
    return result;
  }

  /// Image i has the value 10 * (i + 1) and the label given[i].
  static std::string png(std::size_t i) { return flat_png(10 * static_cast<int>(i + 1)); }
  static std::string raw(std::size_t i) { return std::string(16, static_cast<char>(10 * (i + 1))); }
  static Files samples(const std::vector<int>& given, const std::string& extension,
                       const std::string& before, const std::string& after) {
    Files files;
    for (std::size_t i = 0; i < given.size(); ++i) {
      files.emplace_back(fmt_name(i, extension), before + std::to_string(given[i]) + after);
      files.emplace_back(fmt_name(i, "png"), png(i));
    }
    return files;
  }
  static std::string fmt_name(std::size_t i, const std::string& extension) {
    return "im" + std::to_string(i) + "." + extension;
  }
  static std::string bytes_of(const std::vector<int>& given) {
    return std::string(given.begin(), given.end());
  }

  /// All ways to give the images these numbers as labels, each in its turn the source.
  template <class Check>
  void for_each_format(const std::vector<int>& given, const Check& check) {
    std::string csv = "file_name,label\n", jsonl, pixels, utf32;
    Files pictures;
    for (std::size_t i = 0; i < given.size(); ++i) {
      const std::string name = fmt_name(i, "png"), number = std::to_string(given[i]);
      pictures.emplace_back(name, png(i));
      csv += name + "," + number + (i % 2 == 0 ? ".0\n" : "\n");
      jsonl += "{\"file_name\": \"" + name + "\", \"label\": " + number + "}\n";
      pixels += raw(i);
      for (std::size_t c = 0; c < 2; ++c)
        utf32 += std::string(1, c < number.size() ? number[c] : '\0') + std::string(3, '\0');
    }
    for (const auto& [name, text] : Files{{"metadata.csv", csv}, {"metadata.jsonl", jsonl}}) {
      Files all = pictures;
      all.emplace_back(name, text);
      put_folder(all);
      check(name);
      put_zip(all);
      check("zipped " + name);
    }
    const Files cls = samples(given, "cls", "", "\n"),
                json = samples(given, "json", "{\"label\": ", "}");
    put_folder(cls);
    check(".cls in a folder");
    put_tar(cls);
    check(".cls in a tar");
    put_folder(json);
    check(".json in a folder");
    put_tar(json);
    check(".json in a tar");
    const auto count = std::to_string(given.size());
    const std::string images = make_npy("|u1", "(" + count + ", 4, 4)", pixels);
    put_zip({{"images.npy", images},
             {"labels.npy", make_npy("|i1", "(" + count + ",)", bytes_of(given))}},
            "a.npz");
    check("numbers in an .npz");
    put_zip({{"images.npy", images}, {"labels.npy", make_npy("<U2", "(" + count + ",)", utf32)}},
            "a.npz");
    check("text in an .npz");
    start_anew();
    const auto size = static_cast<std::uint32_t>(given.size());
    put(options.source, make_idx(8, {size, 4, 4}, pixels));
    put(folder / "labels", make_idx(8, {size}, bytes_of(given)));
    options.labels = folder / "labels";
    check("IDX");
    start_anew();
    put_image("data_batch_1.bin", cifar(given));
    options.image_size = 32;
    check("CIFAR");
    options.image_size = 4;
  }
  static std::string cifar(const std::vector<int>& given) {
    std::string bytes;
    for (std::size_t i = 0; i < given.size(); ++i)
      bytes += std::string(1, static_cast<char>(given[i])) +
               std::string(3072, static_cast<char>(10 * (i + 1)));
    return bytes;
  }
};

TEST_F(LabelAgreement, NumbersMeanTheSameInEveryFormat) {
  struct Case {
    std::vector<std::string> names;
    std::vector<int> given, labels;
  };
  std::vector<std::string> letters;
  for (int i = 1; i <= 26; ++i) letters.push_back(std::to_string(i));
  for (const Case& c :
       {Case{{"2", "1", "0"}, {0, 1, 2}, {2, 1, 0}}, Case{letters, {1, 26, 7}, {0, 25, 6}},
        Case{{"01", "02", "03"}, {3, 1, 2}, {2, 0, 1}}, Case{{"5", "cat", "7"}, {7, 5}, {2, 0}},
        Case{{"0", "1", "2"}, {2, 0, 1}, {2, 0, 1}}, Case{{"00", "01", "02"}, {2, 0, 1}, {2, 0, 1}},
        Case{{"ant", "1", "cat"}, {2, 0, 1}, {2, 0, 1}},
        Case{{"ant", "bee", "cat"}, {2, 0, 1}, {2, 0, 1}}}) {
    options.class_names = c.names;
    options.num_classes = std::ssize(c.names);
    Records expected;
    for (std::size_t i = 0; i < c.given.size(); ++i)
      expected.emplace_back(10 * static_cast<int>(i + 1), c.labels[i]);
    for_each_format(c.given, [&](const std::string& format) {
      EXPECT_EQ(records(), expected) << format << ", first name " << c.names[0];
    });
  }
}

TEST_F(LabelAgreement, ANumberThatIsNoNameIsRefusedInEveryFormat) {
  options.class_names = {"2", "1", "5"};
  options.num_classes = 3;
  for_each_format({1, 0}, [&](const std::string& format) {
    EXPECT_THAT(data_error(),
                AllOf(HasSubstr("0"), HasSubstr("'5'"), HasSubstr("data.class_names")))
        << format;
  });
}

TEST(ClassNumbers, AreNamesWhereANameIsOutOfPlace) {
  EXPECT_FALSE(ClassNumbers().are_names());
  EXPECT_FALSE(ClassNumbers({"0", "1", "x"}).are_names());
  EXPECT_FALSE(ClassNumbers({"00", "1.0"}).are_names());
  EXPECT_EQ(ClassNumbers({"a", "2", "0"}).misplaced(), "2");
  EXPECT_TRUE(ClassNumbers({"a", "-1"}).are_names());
  const ClassNumbers both({"07", "7", "007", "08"});
  EXPECT_EQ(both.name_of(7), "7");
  EXPECT_EQ(both.name_of(8), "08");
  EXPECT_EQ(both.spelling("007"), "007");
  EXPECT_EQ(both.spelling("7.0"), "7");
  EXPECT_EQ(both.spelling("9.00"), "9");
  EXPECT_EQ(ClassNumbers({"07", "007"}).name_of(7), "7");  // which of them is unclear
  EXPECT_EQ(ClassNumbers().spelling("007"), "007");
  EXPECT_TRUE(ClassNumbers({"cat", "dog"}).contradict(" 1", "cat"));
  EXPECT_FALSE(ClassNumbers({"cat", "dog"}).contradict("0", "cat"));
  EXPECT_FALSE(ClassNumbers({"cat", "dog"}).contradict("0", "Cat"));
  EXPECT_TRUE(ClassNumbers({"2", "1", "0"}).contradict("0", "2"));
  EXPECT_TRUE(ClassNumbers({"cat", "dog"}).contradict("dog", "cat"));
  EXPECT_TRUE(ClassNumbers({"5", "dog"}).contradict("1", "dog"));
  EXPECT_FALSE(ClassNumbers({"cat", "dog"}).contradict("2", "dog"));  // an error by itself
}

TEST_F(LabelAgreement, TwoSpellingsOfOneLabelAreOne) {
  put_folder({{"c.png", png(0)},
              {"d.png", png(1)},
              {"metadata.csv", "file_name,label\nc.png,1\nc.png,1.0\nd.png,cat\nd.png, cat\n"}});
  options.num_classes = 2;
  options.accept_class_names = true;
  EXPECT_THAT(records(), ElementsAre(std::pair(10, 0), std::pair(20, 1)));
  EXPECT_THAT(RecordStore::open(options.store).class_names(), ElementsAre("1", "cat"));
  put_image("metadata.csv", "file_name,label\nc.png,1\nc.png,01\nd.png,cat\n");
  std::filesystem::remove_all(options.store);
  EXPECT_THAT(data_error(), HasSubstr("two classes"));
}

TEST_F(LabelAgreement, CifarsFileOfNamesAndTheListMustAgree) {
  start_anew();
  put_image("data_batch_1.bin", cifar({0, 1}));
  put_image("batches.meta.txt", "plane\ncar\n");
  options.image_size = 32;
  options.num_classes = 2;
  options.class_names = {"car", "plane"};
  EXPECT_THAT(message_of<UsageError>([&] { prepare(options); }),
              AllOf(HasSubstr("calls label 0 'plane'"), HasSubstr("[\"plane\", \"car\"]")));
  options.class_names = {"aeroplane", "car"};
  EXPECT_THAT(records(), ElementsAre(std::pair(10, 0), std::pair(20, 1)));
}

/// As in shards and folders of our corpora that have lost their lineage.
TEST_F(LabelAgreement, ANameBesideANumberIsNotContradicted) {
  const auto json = [](int label, const std::string& name) {
    return "{\"label\": " + std::to_string(label) + ", \"class_name\": \"" + name + "\"}";
  };
  const Files sample = {{"a.cls", "0"}, {"a.json", json(0, "2")}, {"a.png", png(0)}};
  const Files table = {{"a.png", png(0)},
                       {"metadata.csv", "file_name,label,class_name\na.png,0,2\n"}};
  const Files lines = {
      {"a.png", png(0)},
      {"metadata.jsonl", R"({"file_name": "a.png", "label": 0, "class_name": "2"})"}};
  options.num_classes = 3;
  for (const std::vector<std::string>& names :
       {std::vector<std::string>{"2", "1", "0"}, {"x", "y", "2"}}) {
    options.class_names = names;
    const int by_name = names[0] == "2" ? 0 : 2;
    for (int form = 0; form < 5; ++form) {
      if (form == 0) put_tar(sample);
      if (form == 1) put_folder(sample);
      if (form == 2) put_folder(table);
      if (form == 3) put_folder(lines);
      if (form == 4) put_tar({{"a.json", json(0, "2")}, {"a.png", png(0)}});
      options.label_column = "label";
      EXPECT_THAT(data_error(), HasSubstr("data.label_column=class_name")) << form;
      options.label_column = "class_name";
      EXPECT_THAT(records(), ElementsAre(std::pair(10, by_name))) << form;
    }
  }
  options.label_column = "label";
  options.class_names = {"x", "y", "z"};  // other names than the corpus's
  put_tar(sample);
  EXPECT_THAT(records(), ElementsAre(std::pair(10, 0)));
}

class LabelColumn : public LabelAgreement {
 protected:
  LabelColumn() {
    options.num_classes = 2;
    options.accept_class_names = true;
    options.label_column = "kind";
  }
  std::vector<std::string> names() {
    std::filesystem::remove_all(options.store);
    return prepare(options).class_names;
  }
};

TEST_F(LabelColumn, ThatIsAskedForIsTakenBesideClsFiles) {
  const Files files = {{"a.cls", "7"}, {"a.json", R"({"kind": "dog"})"}, {"a.png", png(0)},
                       {"b.cls", "9"}, {"b.json", R"({"kind": "cat"})"}, {"b.png", png(1)}};
  for (int form = 0; form < 3; ++form) {
    form == 0 ? put_tar(files) : form == 1 ? put_zip(files) : put_folder(files);
    EXPECT_THAT(names(), ElementsAre("cat", "dog")) << form;
    EXPECT_THAT(labels(), ElementsAre(1, 0)) << form;
    std::filesystem::remove_all(options.store);
    options.label_column = "knid";
    EXPECT_THAT(data_error(), AllOf(HasSubstr("data.label_column=knid"), HasSubstr(".json"),
                                    HasSubstr("leave data.label_column out")))
        << form;
    options.label_column = "kind";
  }
  put_tar({{"a.cls", "7"}, {"a.png", png(0)}});
  EXPECT_THAT(data_error(), AllOf(HasSubstr("data.label_column=kind"), HasSubstr("a.cls")));
}

TEST_F(LabelColumn, MayBeInATableBesideClsFiles) {
  Files files = {{"a.cls", "7"},
                 {"a.png", png(0)},
                 {"b.cls", "9"},
                 {"b.png", png(1)},
                 {"metadata.csv", "file_name,kind\na.png,dog\nb.png,cat\n"}};
  put_folder(files);
  EXPECT_THAT(names(), ElementsAre("cat", "dog"));
  put_tar(files);
  EXPECT_THAT(names(), ElementsAre("cat", "dog"));
  files.insert(files.begin(), {"a.json", R"({"kind": "dog"})"});
  put_folder(files);
  EXPECT_THAT(data_error(), HasSubstr("both have 'kind'"));
}

TEST_F(LabelColumn, JsonBesideImagesInAFolder) {
  options.label_column = "label";
  Files files = {{"a.json", R"({"class": "dog"})"},
                 {"a.png", png(0)},
                 {"s/b.json", R"({"label": "cat"})"},
                 {"s/b.png", png(1)}};
  for (int form = 0; form < 2; ++form) {
    form == 0 ? put_folder(files) : put_zip(files);
    EXPECT_THAT(names(), ElementsAre("cat", "dog"));
    EXPECT_THAT(records(), ElementsAre(std::pair(10, 1), std::pair(20, 0)));
  }
  files[0].second = R"({"caption": "a dog"})";
  files[2].second = "no JSON at all";
  put_folder(files);
  EXPECT_THAT(data_error(), HasSubstr("b.json"));
  files[2].second = "{}";
  put_folder(files);
  EXPECT_THAT(data_error(), AllOf(HasSubstr(".json' has no member 'label' or 'class'"),
                                  HasSubstr("data.label_column")));
  // Class folders go first, and what lies beside the images may be anything.
  put_folder({{"cat/a.json", "[1, "},
              {"cat/a.png", png(0)},
              {"dog/b.json", R"({"label": ["x", "y"]})"},
              {"dog/b.png", png(1)}});
  EXPECT_THAT(names(), ElementsAre("cat", "dog"));
}

TEST_F(LabelColumn, DotsInNamesAreTheCauseThatIsNamed) {
  options.label_column = "label";
  for (const std::string where : {"", "cat/"})
    for (const std::string kind : {"cls", "json"}) {
      const std::string label = kind == "cls" ? "1" : R"({"label": 1})";
      Files files = {{where + "img.0." + kind, label},
                     {where + "img.0.png", png(0)},
                     {where + "img.1." + kind, label},
                     {where + "img.1.png", png(1)}};
      if (!where.empty()) files.emplace_back("dog/x.png", png(2));
      if (!where.empty() && kind == "json") continue;  // class folders, and JSON about anything
      for (int form = 0; form < 3; ++form) {
        form == 0 ? put_tar(files) : form == 1 ? put_zip(files) : put_folder(files);
        EXPECT_THAT(data_error(), AllOf(HasSubstr("img.0." + kind), HasSubstr("first dot"),
                                        HasSubstr("without other dots")))
            << where << form;
      }
    }
  // Further pictures and their labels are no business of the sample's.
  put_tar({{"1.cls", "0"},
           {"1.png", png(0)},
           {"1.seg.cls", "9"},
           {"1.seg.png", png(1)},
           {"2.cls", "1"},
           {"2.seg.png", png(2)}});
  EXPECT_THAT(records(), ElementsAre(std::pair(10, 0), std::pair(30, 1)));
}

TEST_F(LabelColumn, LabelsThatContradictTheirFolderAreRefused) {
  options.label_column = "label";
  options.accept_class_names = false;
  options.class_names = {"cat", "dog"};
  const Files files = {
      {"cat/a.cls", "1"}, {"cat/a.png", png(0)}, {"dog/b.cls", "0"}, {"dog/b.png", png(1)}};
  for (int form = 0; form < 3; ++form) {
    form == 0 ? put_tar(files) : form == 1 ? put_zip(files) : put_folder(files);
    EXPECT_THAT(data_error(),
                AllOf(HasSubstr("cat/a.cls"), HasSubstr("folder of the class 'cat'")));
  }
  options.class_names = {"dog", "cat"};
  EXPECT_THAT(records(), ElementsAre(std::pair(10, 1), std::pair(20, 0)));
}

}  // namespace
}  // namespace sfumato
