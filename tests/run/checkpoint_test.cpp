#include "sfumato/run/checkpoint.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <limits>
#include <set>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "support/error_message.h"
#include "support/file_size_limit.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

Checkpoint example(int64_t step) {
  Checkpoint checkpoint;
  checkpoint.step = step;
  const float extreme[] = {-0.0f, 1e-42f, std::numeric_limits<float>::max(), 0.1f};
  checkpoint.model = {{"z.weight", at::tensor(at::ArrayRef<float>(extreme))},
                      {"a.bias", at::randn({3, 2})}};
  checkpoint.ema = {{"updates", at::scalar_tensor(step, at::kLong)}, {"z.weight", at::randn({4})}};
  checkpoint.optimizer = {{"steps", at::scalar_tensor(int64_t{1} << 40, at::kLong)}};
  checkpoint.state = {{"plan_hash", "abc"}, {"nested", {1, 2.5, "x"}}};
  return checkpoint;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Checkpoints : public ::testing::Test {
 protected:
  fs::path write(int64_t step) {
    write_checkpoint(folder.path(), example(step));
    return newest_checkpoint(folder.path()).value();
  }
  TempFolder folder;
};

void expect_same_bits(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first) << "order is kept";
    EXPECT_EQ(a[i].second.scalar_type(), b[i].second.scalar_type());
    EXPECT_EQ(a[i].second.sizes(), b[i].second.sizes());
    EXPECT_EQ(std::memcmp(a[i].second.const_data_ptr(), b[i].second.const_data_ptr(),
                          a[i].second.nbytes()),
              0)
        << a[i].first;
  }
}

TEST_F(Checkpoints, ComeBackBitForBit) {
  const Checkpoint written = example(100);
  write_checkpoint(folder.path(), written);
  const Checkpoint read = read_checkpoint(folder / "step_000100");
  EXPECT_EQ(read.step, 100);
  expect_same_bits(written.model, read.model);
  expect_same_bits(written.ema, read.ema);
  expect_same_bits(written.optimizer, read.optimizer);
  EXPECT_EQ(read.state.at("plan_hash"), "abc");
  EXPECT_EQ(read.state.at("nested"), written.state.at("nested"));
}

TEST_F(Checkpoints, HaveTheFilesAndModesOfPrivateThings) {
  const fs::path path = write(7);
  EXPECT_EQ(path.filename(), "step_000007");
  EXPECT_THAT(names_in(path), ElementsAre("DONE", "ema.safetensors", "model.safetensors",
                                          "optimizer.safetensors", "state.json"));
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  for (const std::string& name : names_in(path)) {
    ASSERT_EQ(::stat((path / name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << name;
  }
}

TEST_F(Checkpoints, TheNewestIsTheOneWithTheHighestStep) {
  EXPECT_EQ(newest_checkpoint(folder.path()), std::nullopt);
  EXPECT_EQ(newest_checkpoint(folder / "none"), std::nullopt);
  for (const int64_t step : {999999, 2, 1000000, 30}) write_checkpoint(folder.path(), example(step));
  EXPECT_EQ(newest_checkpoint(folder.path())->filename(), "step_1000000");
}

TEST_F(Checkpoints, WithoutDoneTheyDoNotCount) {
  write(2);
  write(4);
  fs::remove(folder / "step_000004/DONE");
  EXPECT_EQ(newest_checkpoint(folder.path())->filename(), "step_000002");
  EXPECT_THAT(error_message<DataError>([&] { read_checkpoint(folder / "step_000004"); }),
              HasSubstr("DONE"));
}

TEST_F(Checkpoints, OtherFoldersDoNotCount) {
  write(2);
  fs::create_directories(folder / "step_x");
  write_file_atomic(folder / "step_x/DONE", "");
  fs::create_directories(folder / "backup");
  write_file_atomic(folder / "backup/DONE", "");
  EXPECT_EQ(newest_checkpoint(folder.path())->filename(), "step_000002");
}

// DONE is last: wherever writing fails, there is none.
TEST_F(Checkpoints, AFullDiskAtAnyMomentLeavesTheOlderOneTheNewest) {
  write(2);
  std::set<std::uintmax_t> sizes;
  for (const auto& entry : fs::directory_iterator(folder / "step_000002"))
    sizes.insert(entry.file_size());
  ASSERT_GE(sizes.size(), 4u);
  for (const std::uintmax_t size : sizes) {
    if (size == 0) continue;
    {
      const FileSizeLimit limit(size - 1);
      EXPECT_THROW(write_checkpoint(folder.path(), example(4)), DataError) << size;
    }
    EXPECT_FALSE(fs::exists(folder / "step_000004/DONE")) << size;
    EXPECT_EQ(newest_checkpoint(folder.path())->filename(), "step_000002") << size;
  }
  write(4);  // over what the failures left
  EXPECT_EQ(read_checkpoint(folder / "step_000004").step, 4);
}

TEST_F(Checkpoints, DamageIsAnErrorThatNamesTheFile) {
  for (const char* name : {"model.safetensors", "ema.safetensors", "optimizer.safetensors"}) {
    const fs::path path = write(2);
    fs::resize_file(path / name, fs::file_size(path / name) - 1);
    EXPECT_THAT(error_message<DataError>([&] { read_checkpoint(path); }), HasSubstr(name));
    fs::remove(path / name);
    EXPECT_THAT(error_message<DataError>([&] { read_checkpoint(path); }), HasSubstr(name));
  }
  for (const char* text : {"", "{", "[]", "{\"step\": \"two\"}", "{\"step\": 2}",
                           "{\"step\": 2, \"tensors\": {\"model\": [1]}}",
                           "{\"step\": 2, \"tensors\": {\"model\": [\"none\"]}}"}) {
    const fs::path path = write(2);
    write_file_atomic(path / "state.json", text);
    EXPECT_THAT(error_message<DataError>([&] { read_checkpoint(path); }), HasSubstr(path.string()))
        << text;
  }
}

TEST_F(Checkpoints, PruningKeepsTheNewestAndTheMilestones) {
  for (int64_t step = 10; step <= 80; step += 10) write(step);
  prune_checkpoints(folder.path(), 2, 30);
  EXPECT_THAT(names_in(folder.path()),
              ElementsAre("step_000030", "step_000060", "step_000070", "step_000080"));
  prune_checkpoints(folder.path(), 1, 0);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("step_000080"));
  prune_checkpoints(folder.path(), 5, 0);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("step_000080"));
}

TEST_F(Checkpoints, PruningRemovesWhatACrashLeft) {
  write(10);
  write(20);
  write(30);
  fs::remove(folder / "step_000030/DONE");
  prune_checkpoints(folder.path(), 1, 0);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("step_000020"));
}

}  // namespace
}  // namespace sfumato
