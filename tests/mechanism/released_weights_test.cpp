// What a record store remembers of the weights that runs on it wrote: copies in any precision, and
// witnesses that are damaged.
#include "sfumato/mechanism/released_weights.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/run/store_notes.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// Values that no two tensors of different `seed` share, and that 16 bits do not hold.
at::Tensor values(double seed, at::IntArrayRef shape) {
  const at::Tensor tensor = at::empty(shape, at::kFloat);
  float* data = tensor.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i)
    data[i] = static_cast<float>(std::sin((1 + seed) * static_cast<double>(i) + seed));
  return tensor;
}

NamedTensors network(double seed) {
  return {{"conv_in.weight", values(seed, {4, 1, 3, 3})},
          {"conv_in.bias", values(seed + 0.1, {8})},
          {"norm.weight", at::full({8}, 1.0f)},
          {"class_embedding.weight", values(seed + 0.2, {5, 6})},
          {"linear.weight", values(seed + 0.3, {6, 6})}};
}

NamedTensors in(at::ScalarType type, NamedTensors weights) {
  for (auto& [name, value] : weights) value = value.to(type).to(at::kFloat);
  return weights;
}

class RememberedWeights : public ::testing::Test {
 protected:
  RememberedWeights() {
    set_quiet(true);
    fs::create_directories(store());
  }
  ~RememberedWeights() override { set_quiet(false); }

  fs::path store() const { return folder / "store"; }
  fs::path notes() const { return store() / "uses/released_weights.jsonl"; }

  static KnownWeights of_run(const std::string& run, std::int64_t charged_steps) {
    KnownWeights known;
    known.run_id = run;
    known.is_private = true;
    known.plan.sample_rate = 0.1;
    known.plan.noise_multiplier = 1;
    known.plan.steps = 10;
    known.charged_steps = charged_steps;
    return known;
  }
  void remember(const KnownWeights& what, const NamedTensors& weights) const {
    WeightsMemory(store(), network(100), /*start_is_public=*/true).remember(what, {weights});
  }
  void remember_all(const KnownWeights& what, const NamedTensors& weights) const {
    WeightsMemory(store(), network(100), /*start_is_public=*/false).remember(what, {weights});
  }
  std::vector<KnownWeights> find(const NamedTensors& weights) const {
    return find_known_weights(store(), weights);
  }
  std::vector<std::string> lines() const {
    std::istringstream text(read_file(notes()));
    std::vector<std::string> found;
    for (std::string line; std::getline(text, line);) found.push_back(line);
    return found;
  }
  void write(const std::vector<std::string>& lines) const {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    write_file_atomic(notes(), text);
  }

  test::TempFolder folder;
};

TEST_F(RememberedWeights, AreKnownInEveryPrecisionAndInPart) {
  EXPECT_THAT(find(network(1)), IsEmpty());
  remember(of_run("a", 3), network(1));
  const NamedTensors half = in(at::kHalf, network(1));
  for (const NamedTensors& copy :
       {network(1), half, in(at::kBFloat16, network(1)), in(at::kBFloat16, half)}) {
    ASSERT_THAT(find(copy), SizeIs(1));
    EXPECT_EQ(find(copy)[0].run_id, "a");
    EXPECT_EQ(find(copy)[0].charged_steps, 3);
    EXPECT_TRUE(find(copy)[0].is_private);
  }
  // Any single tensor that is still there tells: mixed precision, other names, all others replaced.
  for (std::size_t kept = 0; kept < network(1).size(); ++kept)
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
      if (network(1)[kept].first == "norm.weight") continue;  // ones, as everybody has them
      NamedTensors mixed = network(2);
      mixed[kept] = {"renamed", in(type, network(1))[kept].second};
      EXPECT_THAT(find(mixed), SizeIs(1)) << kept << " " << type;
    }
  // A class table that was cut and sorted otherwise.
  NamedTensors cut = network(2);
  cut[3].second = network(1)[3].second.slice(0, 2, 4).flip({0});
  EXPECT_THAT(find(cut), SizeIs(1));
  // One element of every tensor changed, and nothing is the same.
  NamedTensors changed = network(1);
  for (auto& [name, value] : changed) {
    value = value.clone();
    value.view({-1})[0] += 0.5;
  }
  changed[3].second.select(1, 0) += 0.5;
  EXPECT_THAT(find(changed), IsEmpty());
  EXPECT_THAT(find(network(2)), IsEmpty());
}

TEST_F(RememberedWeights, AreNotThoseThatTheRunStartedFrom) {
  NamedTensors trained = network(100);
  trained[4].second = values(7, {6, 6});
  remember(of_run("a", 3), trained);
  EXPECT_THAT(find(trained), SizeIs(1));
  EXPECT_THAT(find(network(100)), IsEmpty());
  // Nothing new, no line.
  const auto before = lines().size();
  remember(of_run("b", 3), network(100));
  EXPECT_THAT(lines(), SizeIs(before));
  // What is not public at the start is remembered, unless it is known already.
  remember_all(of_run("c", 3), network(100));
  ASSERT_THAT(find(network(100)), SizeIs(1));
  EXPECT_EQ(find(network(100))[0].run_id, "c");
  remember_all(of_run("d", 3), network(100));
  EXPECT_THAT(find(network(100)), SizeIs(1));
}

TEST_F(RememberedWeights, CountForEachRunAsMuchAsTheyCostMost) {
  remember(of_run("a", 3), network(1));
  remember(of_run("a", 3), network(1));  // as a resumed run releases once more
  EXPECT_THAT(lines(), SizeIs(1));
  remember(of_run("a", 5), network(1));
  remember(of_run("a", 4), network(1));
  ASSERT_THAT(find(network(1)), SizeIs(1));
  EXPECT_EQ(find(network(1))[0].charged_steps, 5);
  remember(of_run("b", 1), network(1));
  EXPECT_THAT(find(network(1)), SizeIs(2));
  KnownWeights plain;
  remember(plain, network(1));
  const auto found = find(network(1));
  ASSERT_THAT(found, SizeIs(3));
  EXPECT_FALSE(found[2].is_private);
  // Tensors of two runs in one network.
  remember(of_run("c", 1), network(3));
  NamedTensors both = network(2);
  both[0] = network(1)[0];
  both[4] = network(3)[4];
  EXPECT_THAT(find(both), SizeIs(4));
}

TEST_F(RememberedWeights, DamagedLinesHideNoOthers) {
  remember(of_run("a", 3), network(1));
  remember(of_run("b", 4), network(2));
  const std::vector<std::string> whole = lines();
  ASSERT_THAT(whole, SizeIs(2));
  // A plan that cannot be read, as a newer version may write it: known, and what it costs is not.
  Json line = Json::parse(whole[0]);
  line["plan"]["sample_rate"] = "often";
  write({line.dump(), whole[1]});
  EXPECT_THAT(find(network(2)), SizeIs(1));
  EXPECT_EQ(find(network(2))[0].defect, "");
  ASSERT_THAT(find(network(1)), SizeIs(1));
  EXPECT_THAT(find(network(1))[0].defect, HasSubstr("line 1"));
  // Other weights are remembered all the same.
  remember(of_run("c", 1), network(3));
  EXPECT_THAT(find(network(3)), SizeIs(1));
  for (const std::string& text : {std::string("[]"), std::string("{}"), std::string("\0\xff", 2),
                                  std::string("{\"tensors\":7}"), std::string(100000, '[')}) {
    write({text, whole[1]});
    EXPECT_THAT(find(network(2)), SizeIs(1)) << text.substr(0, 20);
    EXPECT_THAT(find(network(1)), IsEmpty()) << text.substr(0, 20);
    remember(of_run("c", 1), network(3));
    EXPECT_THAT(find(network(3)), SizeIs(1)) << text.substr(0, 20);
  }
}

TEST_F(RememberedWeights, ATornLineIsFollowedByAWholeOne) {
  remember(of_run("a", 3), network(1));
  const std::string whole = read_file(notes());
  // Before its end, a crash; the run that goes on says it again.
  for (const std::size_t length : {whole.size() - 2, whole.size() - 40, std::size_t{20}}) {
    write_file_atomic(notes(), whole.substr(0, length));
    remember(of_run("a", 3), network(1));
    ASSERT_THAT(find(network(1)), SizeIs(1)) << length;
    EXPECT_EQ(find(network(1))[0].defect, "") << length;
    remember(of_run("b", 3), network(2));
    EXPECT_THAT(find(network(2)), SizeIs(1)) << length;
  }
  // Nobody repeated it: its cost is not known.
  write_file_atomic(notes(), whole.substr(0, whole.size() - 40) + "\n");
  ASSERT_THAT(find(network(1)), SizeIs(1));
  EXPECT_THAT(find(network(1))[0].defect, HasSubstr("is damaged"));
}

TEST_F(RememberedWeights, OfOlderVersionsAreKnownAsAWhole) {
  KnownWeights note = of_run("old", 2);
  fs::create_directories(store() / "uses");
  const NamedTensors weights = network(1);
  // As they were written: SHA-256 over names, shapes and values, sorted by name.
  write({Json{{"run", "old"},
              {"released", "2026-11-01T00:00:00Z"},
              {"private", true},
              {"plan", note.plan.to_json()},
              {"charged_steps", 2},
              {"digests",
               {network_digest(weights), network_digest(in(at::kHalf, weights)),
                network_digest(in(at::kBFloat16, weights))}}}
             .dump()});
  for (const NamedTensors& copy : {weights, in(at::kHalf, weights), in(at::kBFloat16, weights)}) {
    ASSERT_THAT(find(copy), SizeIs(1));
    EXPECT_EQ(find(copy)[0].charged_steps, 2);
  }
  EXPECT_THAT(find(network(2)), IsEmpty());
  remember(of_run("new", 3), weights);
  EXPECT_THAT(find(weights), SizeIs(2));
}

/// A part keeps its own witnesses, and its records are the store's.
TEST_F(RememberedWeights, AreKnownFromPartsOfAStoreAndFromTheWhole) {
  const auto write = [](const fs::path& place, const Json& preparation) {
    RecordStoreWriter writer(place, {1, 1, 1, 0, {}, false, 1});
    for (int i = 0; i < 2; ++i) writer.append(std::vector<std::uint8_t>(1), 0);
    writer.finish(nlohmann::json(preparation));
  };
  const fs::path whole = folder / "whole", tuning = folder / "whole-tuning-0.5",
                 final_run = folder / "whole-final-0.5", stranger = folder / "whole-final-0.25";
  write(whole, {{"note", "by a test"}});
  write(tuning, part_origin(whole, 0.5, true));
  write(final_run, part_origin(whole, 0.5, false));
  write(stranger, part_origin(tuning, 0.25, false));  // of another store
  const std::vector<fs::path> related = {whole, tuning, final_run};
  for (std::size_t i = 0; i < related.size(); ++i) {
    const NamedTensors weights = network(static_cast<double>(i));
    WeightsMemory(related[i], network(100), /*start_is_public=*/true)
        .remember(of_run("run " + std::to_string(i), 3), {weights});
  }
  for (const fs::path& store : related) {
    for (std::size_t i = 0; i < related.size(); ++i) {
      const auto found = find_known_weights(store, network(static_cast<double>(i)));
      ASSERT_THAT(found, SizeIs(1)) << store << " " << i;
      EXPECT_EQ(found[0].run_id, "run " + std::to_string(i));
    }
    EXPECT_THAT(find_known_weights(store, network(50)), IsEmpty());
  }
  EXPECT_THAT(find_known_weights(stranger, network(0)), IsEmpty());
}

TEST_F(RememberedWeights, ThatCannotBeNotedMayNotBeWritten) {
  const NamedTensors weights = network(1);
  WeightsMemory memory(store(), network(100), /*start_is_public=*/true);
  fs::create_directories(notes());  // no file can be written there
  EXPECT_THAT(test::error_message<DataError>([&] { memory.remember(of_run("a", 1), {weights}); }),
              HasSubstr("nothing is written"));
  // As soon as it can be noted, it is.
  fs::remove(notes());
  memory.remember(of_run("a", 1), {weights});
  EXPECT_THAT(find(network(1)), SizeIs(1));
  // A store that keeps no witness at all is warned of when the run starts.
  fs::remove_all(store());
  write_file_atomic(store(), "no folder");
  WeightsMemory deaf(store(), network(100), /*start_is_public=*/true);
  EXPECT_NO_THROW(deaf.remember(of_run("a", 1), {weights}));
}

}  // namespace
}  // namespace sfumato
