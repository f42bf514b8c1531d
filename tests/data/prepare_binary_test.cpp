#include <functional>

#include "data/prepare_fixture.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

class PrepareIdx : public Prepare {
 protected:
  PrepareIdx() {
    options.source = folder / "images";
    options.labels = folder / "labels";
    options.num_classes = 10;
    options.allow_empty_classes = {"*"};
    std::string pixels;
    for (int i = 0; i < 5; ++i) pixels += std::string(16, static_cast<char>(10 * i));
    put(options.source, gzip(make_idx(8, {5, 4, 4}, pixels)));
    put_labels({7, 0, 9, 3, 7});
  }
  void put_labels(const std::vector<int>& values) {
    std::string bytes;
    for (const int value : values) bytes.push_back(static_cast<char>(value));
    put(options.labels, make_idx(8, {static_cast<std::uint32_t>(values.size())}, bytes));
  }
};

TEST_F(PrepareIdx, ImagesAndLabels) {
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.format, "idx");
  EXPECT_THAT(values(), ElementsAre(0, 10, 20, 30, 40));
  EXPECT_THAT(labels(), ElementsAre(7, 0, 9, 3, 7));
  EXPECT_EQ(report.class_names[9], "9");
}

TEST_F(PrepareIdx, ColourAndUnconditional) {
  put(options.source, make_idx(8, {1, 1, 1, 3}, "\x0a\x14\x1e"));
  options.labels.clear();
  options.num_classes = 0;
  options.channels = 3;
  prepare(options);
  const RecordStore store = RecordStore::open(options.store);
  EXPECT_THAT(store.pixels(0).subspan(0, 3), ElementsAre(10, 20, 30));
  EXPECT_EQ(store.height(), 4);
}

TEST_F(PrepareIdx, LabelOutOfRange) {
  put_labels({7, 0, 10, 3, 7});
  const std::string message = data_error();
  EXPECT_THAT(message, HasSubstr("image 2' has label 10"));
  EXPECT_THAT(message, HasSubstr("data.num_classes is 10"));
  put(options.labels, make_idx(9, {5}, "\1\1\xff\1\1"));  // signed: -1
  EXPECT_THAT(data_error(), HasSubstr("label -1"));
}

TEST_F(PrepareIdx, MistakesAreNamed) {
  put_labels({1, 2});
  EXPECT_THAT(data_error(), HasSubstr("2 labels"));
  std::swap(options.source, options.labels);
  EXPECT_THAT(data_error(), HasSubstr("holds no images"));
  std::swap(options.source, options.labels);
  options.labels = options.source;
  EXPECT_THAT(data_error(), HasSubstr("holds no labels"));
  options.labels.clear();
  EXPECT_THAT(message_of<UsageError>([&] { prepare(options); }), HasSubstr("set data.labels"));
  options.num_classes = 0;
  put(options.source, make_idx(8, {5, 4, 4}, "too short"));
  EXPECT_THAT(data_error(), HasSubstr("truncated"));
  put(options.source, "neither this nor that");
  EXPECT_THAT(data_error(), HasSubstr("no image source"));
  options.format = SourceFormat::kIdx;
  EXPECT_THAT(data_error(), HasSubstr("not an IDX file"));
  put(options.source, make_idx(8, {1, 100000, 100000}, ""));
  EXPECT_THAT(data_error(), HasSubstr("images"));
}

TEST_F(PrepareIdx, GzipTruncatedAtTheLastRecordLeavesNoStore) {
  const std::string whole = get(options.source);
  put(options.source, whole.substr(0, whole.size() - 9));
  EXPECT_THAT(data_error(), HasSubstr("truncated"));
}

TEST_F(PrepareIdx, UsersByIndex) {
  put(folder / "users.csv", "0,a\n1,a\n2,a\n3,b\n4,b\n");
  options.users = folder / "users.csv";
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.kept, 2);
  EXPECT_EQ(report.unit, "one user, at most 1 image");
}

TEST_F(PrepareIdx, ImpossibleOptions) {
  for (const auto& spoil : std::vector<std::function<void(PrepareOptions&)>>{
           [](auto& o) { o.image_size = 0; }, [](auto& o) { o.channels = 2; },
           [](auto& o) { o.records_per_user = 0; }, [](auto& o) { o.num_classes = -1; },
           [](auto& o) { o.store.clear(); }}) {
    PrepareOptions spoilt = options;
    spoil(spoilt);
    EXPECT_THROW(prepare(spoilt), UsageError);
  }
}

class PrepareCifar : public Prepare {
 protected:
  PrepareCifar() {
    options.image_size = 32;
    options.channels = 3;
    options.num_classes = 10;
    options.allow_empty_classes = {"*"};
    std::filesystem::create_directories(options.source);
  }
  /// Pixel p of plane c is (first + 50 c + p) mod 256.
  static std::string record(const std::string& label, int first) {
    std::string bytes = label;
    for (int c = 0; c < 3; ++c)
      for (int p = 0; p < 1024; ++p) bytes.push_back(static_cast<char>(first + 50 * c + p));
    return bytes;
  }
};

TEST_F(PrepareCifar, Cifar10Folder) {
  put(options.source / "data_batch_2.bin", record("\x03", 3));
  put(options.source / "data_batch_1.bin", record("\x09", 1) + record(std::string(1, '\0'), 2));
  put(options.source / "test_batch.bin", record("\x01", 4));
  put(options.source / "batches.meta.txt", "airplane\nautomobile\n\n");
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.format, "cifar");
  EXPECT_EQ(report.class_names[1], "1");  // the file is only a proposal
  EXPECT_THAT(labels(), ElementsAre(9, 0, 3));
  const RecordStore store = RecordStore::open(options.store);
  for (int p : {0, 7, 1023})
    for (int c = 0; c < 3; ++c)
      EXPECT_EQ(store.pixels(2)[3 * p + c], (3 + 50 * c + p) % 256) << p << " " << c;
}

TEST_F(PrepareCifar, Cifar100TakesTheFineLabel) {
  put(options.source / "train.bin", record("\x02\x08", 1));
  prepare(options);
  EXPECT_THAT(labels(), ElementsAre(8));
}

TEST_F(PrepareCifar, SingleFileAndUsers) {
  options.source = folder / "data_batch_1.bin";
  put(options.source, record("\x01", 1) + record("\x02", 2));
  put(folder / "users.csv", "data_batch_1.bin:0,a\ndata_batch_1.bin:1,a\n");
  options.users = folder / "users.csv";
  EXPECT_EQ(prepare(options).over_user_bound, 1);
}

TEST_F(PrepareCifar, BadFiles) {
  options.format = SourceFormat::kCifar;
  EXPECT_THAT(data_error(), HasSubstr("no CIFAR training file"));
  put(options.source / "data_batch_1.bin", record("\x01", 1).substr(1));
  EXPECT_THAT(data_error(), HasSubstr("3072 bytes"));
  put(options.source / "data_batch_1.bin", record("\x0b", 1));
  EXPECT_THAT(data_error(), HasSubstr("label 11"));
  put(options.source / "data_batch_2.bin", record("\x01\x02", 1));
  EXPECT_THAT(data_error(), HasSubstr("mixes"));
}

}  // namespace
}  // namespace sfumato
