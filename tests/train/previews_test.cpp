// Pictures of a run while it trains: where they lie, what they cost, and that nothing else changes.
#include "train/previews.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/generate/families.h"
#include "sfumato/io/image_codec.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;

using PreviewsOfARun = TinyRun;

const std::vector<std::string> kSeen = {"preview.every=2", "preview.images=6", "preview.steps=2",
                                        "preview.share=1"};

std::vector<std::string> with(std::vector<std::string> settings,
                              const std::vector<std::string>& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  if (fs::is_directory(folder))
    for (const auto& entry : fs::directory_iterator(folder))
      names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

TEST_F(PreviewsOfARun, LieInThePrivateFolderAlone) {
  start("run", kSeen);
  const fs::path folder_of = folder / "run/private/previews";
  EXPECT_EQ(names_in(folder_of), (std::vector<std::string>{"index.html", "step_000002.png",
                                                           "step_000004.png", "step_000006.png"}));
  for (const auto& entry : fs::directory_iterator(folder_of))
    EXPECT_EQ(fs::status(entry.path()).permissions() & fs::perms(0077), fs::perms::none)
        << entry.path();
  const std::string page = read_file(folder_of / "index.html");
  EXPECT_THAT(page, HasSubstr("http-equiv=\"refresh\""));
  EXPECT_LT(page.find("id=\"step-6\""), page.find("id=\"step-2\"")) << "the newest first";
  for (const char* word : {"loss", "norm", "clipped", "http:", "https:"})
    EXPECT_THAT(page, Not(HasSubstr(word)));
  for (const auto& entry : fs::recursive_directory_iterator(folder / "run/release"))
    EXPECT_NE(entry.path().extension(), ".png") << entry.path();
}

// A preview borrows the network for the average: afterwards every weight has its own value again.
TEST_F(PreviewsOfARun, ChangeNoBitOfTheRun) {
  const std::vector<std::string> plain = {"privacy.enabled=false", "optimizer.name=adamw"};
  start("seen", with(plain, kSeen));
  start("unseen", with(plain, {"preview.images=0"}));
  EXPECT_EQ(names_in(folder / "seen/private/previews").size(), 4u);
  EXPECT_FALSE(fs::exists(folder / "unseen/private/previews"));
  const SavedTensors seen = checkpoint("seen", 6), unseen = checkpoint("unseen", 6);
  expect_same(seen.model, unseen.model);
  expect_same(seen.ema, unseen.ema);
  expect_same(seen.optimizer, unseen.optimizer);
}

// The sheet of the last step against pictures of the released weights, drawn from release/.
TEST_F(PreviewsOfARun, ShowTheReleasedAverage) {
  start("run", with(kSeen, {"optimizer.learning_rate=0.05", "optimizer.ema_warmup=false",
                            "optimizer.ema_decay=0.9"}));
  const auto config_of_run = config("run", {"sample.steps=2"});
  const ModelPlace place = find_model(folder / "run");
  const SamplingModel model = open_sampling_model(place, *config_of_run);
  const auto sampler = sampler_of(model, *config_of_run);
  const std::vector<ImageId> ids = {{0, 0}, {1, 2}};
  const at::Tensor drawn = sampler->draw(ids);
  const Image sheet =
      decode_image(read_file(folder / "run/private/previews/step_000006.png"), "the sheet");
  // Tiles of 8 pixels, seven times enlarged, two pixels apart: a row for each class.
  const auto pixel = [&](int row, int column, int y, int x) {
    const auto at = (2 + row * 58 + y * 7) * sheet.width + 2 + column * 58 + x * 7;
    return static_cast<int>(sheet.pixels[static_cast<std::size_t>(at * sheet.channels)]);
  };
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 8; ++x) {
      EXPECT_NEAR(pixel(0, 0, y, x), drawn[0][y][x][0].item<int>(), 1);
      EXPECT_NEAR(pixel(1, 2, y, x), drawn[1][y][x][0].item<int>(), 1);
    }
}

TEST_F(PreviewsOfARun, OneThatTheTimeDoesNotPayForIsLeftOut) {
  start("run", with(kSeen, {"preview.share=1e-12"}));
  EXPECT_THAT(names_in(folder / "run/private/previews"), Not(testing::Contains(HasSubstr("png"))));
}

TEST_F(PreviewsOfARun, AnIntervalOfNoStepsIsRefused) {
  EXPECT_THROW(config("run", {"preview.every=0"}), UsageError);
  EXPECT_THROW(config("run", {"preview.share=0"}), UsageError);
  EXPECT_NO_THROW(config("run", {"preview.images=0"}));
}

TEST_F(PreviewsOfARun, ThoseOfLostStepsAreRemoved) {
  start("run", kSeen);
  copy_run("run", "again", 2);
  resume("again", with(kSeen, {"preview.images=0"}));
  EXPECT_EQ(names_in(folder / "again/private/previews"),
            (std::vector<std::string>{"index.html", "step_000002.png"}));
}

TEST(PreviewBudget, NeverSpendsMoreThanItsShare) {
  // A clock of its own: steps of one second, previews of three, a share of a fifth.
  PreviewBudget budget(0.2);
  budget.expect(3);
  double now = 0, previews = 0;
  for (int step = 0; step < 1000; ++step) {
    now += 1;
    if (!budget.allows(now)) continue;
    budget.spend(3);
    now += 3;
    previews += 1;
    EXPECT_LE(3 * previews, 0.2 * now) << step;
  }
  EXPECT_GT(3 * previews, 0.19 * now) << "and makes use of it";
}

TEST(PreviewBudget, PaysBeforeItKnowsAnythingOnlyOutOfTimeThatHasPassed) {
  PreviewBudget budget(0.05);
  EXPECT_FALSE(budget.allows(0));
  EXPECT_TRUE(budget.allows(1));
  budget.spend(0.06);
  EXPECT_FALSE(budget.allows(1));
}

}  // namespace
}  // namespace sfumato
