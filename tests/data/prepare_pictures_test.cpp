#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "data/prepare_fixture.h"
#include "sfumato/core/file.h"
#include "sfumato/io/json_file.h"

// What pictures are made of: their depth, damage, size and format.
namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

/// A 4 x 4 grey PNG of 16 bits: `value` everywhere but in one place.
std::string deep_png(int value, int first) {
  const auto sample = [](int v) {
    return std::string{static_cast<char>(v >> 8), static_cast<char>(v)};
  };
  std::string row;
  for (int i = 0; i < 4; ++i) row += sample(value);
  return make_png(4, 4, 16, 0, {sample(first) + row.substr(2), row, row, row});
}

class PreparePictures : public Prepare {
 protected:
  nlohmann::json manifest() const { return read_json(options.store / "manifest.json"); }
  void put_deep() {
    put_image("a.png", deep_png(100, 10));
    put_image("b.png", deep_png(120, 20));   // differs from a in bits that are cut off
    put_image("c.png", deep_png(120, 20));   // as b
    put_image("d.png", deep_png(3000, 10));  // 11
  }
};

TEST_F(PreparePictures, EveryFormatIsReadByContentWhateverItsName) {
  put_image("a.jfif", grey_jpeg());
  put_image("b.PGM", "P2 1 1 255 7");
  put_image("c.jpg", "P2 1 1 255 8");
  put_image("d.tif", flat_png(9));
  put_image("e.gif", "GIF89a");
  const PrepareReport report = prepare(options);
  EXPECT_EQ(report.kept, 4);
  EXPECT_EQ(report.other_files, 1);
  EXPECT_THAT(values(), ElementsAre(::testing::_, 7, 8, 9));
}

TEST_F(PreparePictures, DeepPicturesAreNoDuplicatesBecauseTheirDepthWasCut) {
  put_deep();
  ::testing::internal::CaptureStderr();
  const PrepareReport report = prepare(options);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("between 10 and 3000"));
  EXPECT_THAT(said, HasSubstr("data.depth=min_max"));
  EXPECT_THAT(values(), ElementsAre(0, 0, 0));
  EXPECT_EQ(report.kept, 3);
  EXPECT_EQ(report.duplicates, 1);
  EXPECT_EQ(report.depth.images, 4);
  EXPECT_EQ(report.depth.min, 10);
  EXPECT_EQ(report.depth.max, 3000);
  EXPECT_EQ(report.depth.dark, 4);
  EXPECT_EQ(report.depth.equal_at_8_bits, 1);
  EXPECT_TRUE(manifest()["preparation"]["depth_range"].is_null());
  EXPECT_EQ(manifest()["preparation"]["counts"]["depth"]["equal_at_8_bits"], 1);
  EXPECT_EQ(to_json(report)["depth"]["max"], 3000);
}

TEST_F(PreparePictures, APublicRangeBringsThemToLight) {
  put_deep();
  options.depth_range = {0, 4095};
  const PrepareReport report = prepare(options);
  // round(255 v / 4095), and what is stored is compared.
  EXPECT_THAT(values(), ElementsAre(1, 1, 1));
  EXPECT_EQ(report.duplicates, 1);
  EXPECT_EQ(report.kept, 3);
  const RecordStore store = RecordStore::open(options.store);
  EXPECT_EQ(int{store.pixels(0)[5]}, 6);
  EXPECT_EQ(int{store.pixels(1)[5]}, 7);
  EXPECT_EQ(int{store.pixels(2)[5]}, 187);
  EXPECT_THAT(manifest()["preparation"]["depth_range"], ElementsAre(0, 4095));
  std::filesystem::remove_all(options.store);
  options.depth_range = {0, 65535};  // now somebody has said that the lower bits do not count
  EXPECT_EQ(prepare(options).duplicates, 2);
  std::filesystem::remove_all(options.store);
  options.depth_range = {7, 7};
  EXPECT_THROW(prepare(options), UsageError);
}

TEST_F(PreparePictures, OneSaysWhatDepthCosts) {
  const auto said = [&] {
    std::filesystem::remove_all(options.store);
    ::testing::internal::CaptureStderr();
    prepare(options);
    return ::testing::internal::GetCapturedStderr();
  };
  put_image("a.png", deep_png(60000, 100));  // uses its bits
  EXPECT_EQ(said(), "");
  options.depth_range = {0, 4095};
  EXPECT_THAT(said(), HasSubstr("outside data.depth_range=0,4095"));
  options.depth_range = {0, 65535};
  EXPECT_EQ(said(), "");
  options.depth_range.reset();
  std::filesystem::remove(options.source / "a.png");
  put_image("a.png", deep_png(34000, 32000));  // around the middle: flat grey
  EXPECT_THAT(said(), HasSubstr("between 32000 and 34000"));
  std::filesystem::remove(options.source / "a.png");
  put_image("a.png", flat_png(3));  // 8 bits
  EXPECT_EQ(said(), "");
}

TEST_F(PreparePictures, WithoutOneDeepPictureTheStoreLosesItsRecordsAlone) {
  put_deep();
  prepare(options);
  const auto records = [&] {
    const RecordStore store = RecordStore::open(options.store);
    std::multiset<std::string> all;
    for (std::int64_t i = 0; i < store.count(); ++i)
      all.emplace(reinterpret_cast<const char*>(store.pixels(i).data()), store.pixels(i).size());
    return all;
  };
  const auto whole = records();
  for (const char* name : {"a.png", "b.png", "c.png", "d.png"}) {
    std::filesystem::rename(options.source / name, folder / "away");
    std::filesystem::remove_all(options.store);
    prepare(options);
    const auto rest = records();
    EXPECT_LE(whole.size() - rest.size(), 1u) << name;
    EXPECT_TRUE(std::includes(whole.begin(), whole.end(), rest.begin(), rest.end())) << name;
    std::filesystem::rename(folder / "away", options.source / name);
  }
}

TEST_F(PreparePictures, DamagedJpegsAreRefusedSkippedOrKept) {
  std::string damaged = color_jpeg();
  damaged.replace(damaged.size() - 12, 10, "");  // the end of the coded pixels
  put_image("a.jpg", damaged);
  put_image("b.png", flat_png(5));
  EXPECT_THAT(data_error(), HasSubstr("a.jpg' is damaged"));
  EXPECT_THAT(data_error(), HasSubstr("data.damaged=keep"));
  EXPECT_THAT(data_error(), HasSubstr("data.skip_unreadable=true"));
  options.skip_unreadable = true;
  PrepareReport report = prepare(options);
  EXPECT_EQ(report.kept, 1);
  EXPECT_EQ(report.unreadable, 1);
  EXPECT_EQ(report.damaged_skipped, 1);
  EXPECT_EQ(report.damaged_kept, 0);
  EXPECT_EQ(manifest()["preparation"]["damaged"], "refuse");
  EXPECT_EQ(manifest()["preparation"]["counts"]["damaged_skipped"], 1);
  std::filesystem::remove_all(options.store);
  options.keep_damaged = true;
  ::testing::internal::CaptureStderr();
  report = prepare(options);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("a.jpg"));
  EXPECT_EQ(report.kept, 2);
  EXPECT_EQ(report.unreadable, 0);
  EXPECT_EQ(report.damaged_kept, 1);
  EXPECT_EQ(manifest()["preparation"]["damaged"], "keep");
  EXPECT_EQ(to_json(report)["damaged_kept"], 1);
}

TEST_F(PreparePictures, TheLimitOfMegapixelsIsASetting) {
  put_image("a.png",
            make_png(1100, 1000, 1, 0, std::vector<std::string>(1000, std::string(138, '\xFF'))));
  options.max_megapixels = 1;
  EXPECT_THAT(data_error(), HasSubstr("data.max_megapixels"));
  options.max_megapixels = 2;
  EXPECT_EQ(prepare(options).kept, 1);
}

TEST_F(PreparePictures, PipesAreErrorsEverywhere) {
  put_image("a.png", flat_png(1));
  ASSERT_EQ(::mkfifo((options.source / "b.png").c_str(), 0600), 0);
  EXPECT_THAT(data_error(), HasSubstr("b.png': it is a pipe"));
  options.skip_unreadable = true;
  EXPECT_EQ(prepare(options).unreadable, 1);
  std::filesystem::remove_all(options.store);
  const std::filesystem::path pipe = options.source / "b.png";
  options.users = pipe;
  EXPECT_THAT(data_error(), HasSubstr("it is a pipe"));
  options.users.clear();
  const std::filesystem::path images = folder / "images.idx";
  put(images, make_idx(8, {1, 4, 4}, std::string(16, 'x')));
  options.source = images;
  options.num_classes = 1;
  options.labels = pipe;
  EXPECT_THAT(data_error(), HasSubstr("it is a pipe"));
  options.num_classes = 0;
  for (const SourceFormat format :
       {SourceFormat::kAuto, SourceFormat::kTar, SourceFormat::kIdx, SourceFormat::kCifar}) {
    options.source = pipe;
    options.format = format;
    EXPECT_NE(data_error(), "no error") << to_string(format);
  }
}

}  // namespace
}  // namespace sfumato
