#include "sfumato/run/checkpoint.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>
#include <fstream>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "run/checkpoint_binding.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/tensor_file.h"
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
  checkpoint.groups = {
      tensor_group("model", {{"z.weight", at::tensor(at::ArrayRef<float>(extreme))},
                             {"a.bias", at::randn({3, 2})}}),
      tensor_group("ema",
                   {{"updates", at::scalar_tensor(step, at::kLong)}, {"z.weight", at::randn({4})}}),
      tensor_group("optimizer", {{"steps", at::scalar_tensor(int64_t{1} << 40, at::kLong)}})};
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

void expect_same_bits(const std::vector<TensorGroup>& a, const std::vector<TensorGroup>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].name, b[i].name) << "order is kept";
    ASSERT_EQ(a[i].tensors.size(), b[i].tensors.size());
    for (std::size_t j = 0; j < a[i].tensors.size(); ++j) {
      const TensorInfo &one = a[i].tensors[j], &other = b[i].tensors[j];
      EXPECT_EQ(one.name, other.name) << "order is kept";
      EXPECT_EQ(one.dtype, other.dtype);
      EXPECT_EQ(one.shape, other.shape);
      EXPECT_TRUE(std::ranges::equal(one.bytes, other.bytes)) << one.name;
    }
  }
}

TEST_F(Checkpoints, ComeBackBitForBit) {
  const Checkpoint written = example(100);
  write_checkpoint(folder.path(), written);
  const Checkpoint read = read_checkpoint(folder / "step_000100");
  EXPECT_EQ(read.step, 100);
  expect_same_bits(written.groups, read.groups);
  EXPECT_EQ(read.state.at("plan_hash"), "abc");
  EXPECT_EQ(read.state.at("nested"), written.state.at("nested"));
  const NamedTensors model = to_tensors(read.group("model"));
  EXPECT_EQ(model[1].first, "a.bias");
  EXPECT_TRUE(model[1].second.equal(to_tensors(written.group("model"))[1].second));
}

TEST_F(Checkpoints, HoldWhateverNetworksThereAre) {
  Checkpoint written = example(3);
  written.groups.clear();
  for (const char* name : {"generator", "discriminator", "ema_2", "optimizer"})
    written.groups.push_back(tensor_group(name, {{"w", at::randn({2})}, {name, at::randn({})}}));
  written.groups.push_back(tensor_group("nothing", {}));
  write_checkpoint(folder.path(), written);
  const Checkpoint read = read_checkpoint(folder / "step_000003");
  expect_same_bits(written.groups, read.groups);
  EXPECT_EQ(checkpoint_sha256(read), checkpoint_sha256(written));
  EXPECT_EQ(read.group("discriminator").tensors[1].name, "discriminator");
  EXPECT_THAT(error_message<DataError>([&] { read.group("model"); }), HasSubstr("'model'"));
}

TEST_F(Checkpoints, OfOlderVersionsHaveThreeGroups) {
  const fs::path path = write(2);
  nlohmann::json state = read_json(path / "state.json");
  state.erase("groups");
  write_json_atomic(path / "state.json", state);
  const Checkpoint read = read_checkpoint(path);
  ASSERT_EQ(read.groups.size(), 3u);
  EXPECT_EQ(read.groups[0].name, "model");
  EXPECT_EQ(read.groups[1].name, "ema");
  EXPECT_EQ(read.groups[2].name, "optimizer");
}

TEST_F(Checkpoints, NamesOfGroupsAreNoPaths) {
  for (const char* name : {"", "../model", "a/b", "Model", "a.b", "\n"}) {
    Checkpoint checkpoint = example(4);
    checkpoint.groups[0].name = name;
    EXPECT_THROW(write_checkpoint(folder.path(), checkpoint), DataError) << name;
    const fs::path path = write(2);
    nlohmann::json state = read_json(path / "state.json");
    state["groups"][1] = name;
    write_json_atomic(path / "state.json", state);
    EXPECT_THAT(error_message<DataError>([&] { read_checkpoint(path); }), HasSubstr("state.json"));
  }
  Checkpoint twice = example(4);
  twice.groups[2].name = "model";
  EXPECT_THROW(write_checkpoint(folder.path(), twice), DataError);
}

/// As ledgers have always noted it: written for tensors of LibTorch.
std::string sha256_of(const std::vector<std::pair<std::string, NamedTensors>>& groups) {
  Sha256 hash;
  const auto add = [&](const std::string& text) {
    hash.update(fmt::format("{}:{}", text.size(), text));
  };
  for (const auto& [group, tensors] : groups) {
    add(fmt::format("{} {}", group, tensors.size()));
    for (const auto& [name, tensor] : tensors) {
      add(name);
      add(fmt::format("{} [{}]", c10::toString(tensor.scalar_type()),
                      fmt::join(tensor.sizes().begin(), tensor.sizes().end(), ",")));
      hash.update(tensor.const_data_ptr(), tensor.nbytes());
    }
  }
  return hex(hash.finish());
}

TEST(CheckpointHash, IsThatOfTheLedgers) {
  std::vector<std::pair<std::string, NamedTensors>> groups = {{"model", {}}, {"ema", {}}};
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong,
                                    at::kInt, at::kByte, at::kBool})
    groups[0].second.emplace_back(c10::toString(type), at::arange(6).view({2, 3}).to(type));
  groups[1].second = {{"updates", at::scalar_tensor(int64_t{7}, at::kLong)},
                      {"empty", at::zeros({0, 2})}};
  groups.emplace_back("optimizer", NamedTensors{{"moment", at::randn({3})}});
  Checkpoint checkpoint;
  for (const auto& [name, tensors] : groups)
    checkpoint.groups.push_back(tensor_group(name, tensors));
  const std::string hash = checkpoint_sha256(checkpoint);
  EXPECT_EQ(hash, sha256_of(groups));
  EXPECT_EQ(checkpoint_sha256({.step = 5, .groups = checkpoint.groups, .state = {}}), hash);
}

TEST(CheckpointHash, KnowsEveryGroup) {
  const Checkpoint checkpoint = example(1);
  const std::string hash = checkpoint_sha256(checkpoint);
  for (std::size_t i = 0; i < checkpoint.groups.size(); ++i) {
    Checkpoint other = checkpoint;
    other.groups[i].name += "x";
    EXPECT_NE(checkpoint_sha256(other), hash);
    other = checkpoint;
    other.groups[i].tensors.pop_back();
    EXPECT_NE(checkpoint_sha256(other), hash);
    NamedTensors tensors = to_tensors(checkpoint.groups[i]);
    tensors.back().second = tensors.back().second.add(1);
    other = checkpoint;
    other.groups[i] = tensor_group(checkpoint.groups[i].name, tensors);
    EXPECT_NE(checkpoint_sha256(other), hash);
  }
  Checkpoint exchanged = checkpoint;
  std::swap(exchanged.groups[0], exchanged.groups[1]);
  EXPECT_NE(checkpoint_sha256(exchanged), hash);
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
  for (const int64_t step : {999999, 2, 1000000, 30})
    write_checkpoint(folder.path(), example(step));
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
                           "{\"step\": 2, \"tensors\": {\"model\": [\"none\"]}}",
                           "{\"step\": 2, \"tensors\": {}, \"groups\": 3}"}) {
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

// What is hashed is what is used, whatever happens to the file in between.
TEST_F(Checkpoints, WhatWasReadDoesNotFollowTheFile) {
  write_checkpoint(folder.path(), example(3));
  const std::filesystem::path path = *newest_checkpoint(folder.path());
  const Checkpoint read = read_checkpoint(path);
  const auto bytes_of = [](const Checkpoint& checkpoint) {
    std::vector<std::byte> all;
    for (const TensorInfo& each : checkpoint.group("model").tensors)
      all.insert(all.end(), each.bytes.begin(), each.bytes.end());
    return all;
  };
  const std::vector<std::byte> before = bytes_of(read);
  const std::uintmax_t size = std::filesystem::file_size(path / "model.safetensors");
  std::fstream file(path / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(size) - 4);
  file << "xxxx";
  file.close();
  EXPECT_EQ(bytes_of(read), before);
  EXPECT_NE(bytes_of(read_checkpoint(path)), before);
}

}  // namespace
}  // namespace sfumato
