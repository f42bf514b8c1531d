#include "train/train_ranks.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <thread>
#include <vector>

#include "sfumato/core/file.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/device/threads.h"
#include "sfumato/dist/join_ranks.h"
#include "sfumato/dist/together.h"

namespace sfumato {
namespace {

/// Contents of the files that describe networks: a name says nothing of them.
std::string described_by(const Config& config) {
  std::string text;
  for (const std::string& file :
       {config.model.config(), config.gan.generator_config(), config.gan.discriminator_config(),
        config.embedding_warmup.generator_config()})
    if (!file.empty() && std::filesystem::exists(file)) text += read_file(file) + "\n";
  return text;
}

}  // namespace

template <class Call>
void TrainRanks::ending_together(const Call& call) {
  try {
    call();
  } catch (const LostRank&) {
    throw;
  } catch (...) {
    all_end_ = true;
    throw;
  }
}

void TrainRanks::on_leader(const std::function<void()>& work) {
  ending_together([&] { sfumato::on_leader(*ranks_, work); });
}

void TrainRanks::everywhere(const std::function<void()>& work) {
  ending_together([&] { sfumato::everywhere(*ranks_, work); });
}

std::int64_t TrainRanks::from_leader(std::int64_t value) { return ranks_->from_leader(value); }

at::Tensor TrainRanks::from_leader(const at::Tensor& tensor) {
  if (alone()) return tensor;
  std::string sizes;
  if (leads()) {
    sizes = fmt::format("{} ", static_cast<int>(tensor.scalar_type()));
    for (const std::int64_t size : tensor.sizes()) sizes += fmt::format("{} ", size);
  }
  std::istringstream text(ranks_->from_leader(sizes));
  int type = 0;
  text >> type;
  std::vector<std::int64_t> shape;
  for (std::int64_t size = 0; text >> size;) shape.push_back(size);
  const at::Tensor all =
      leads() ? tensor.contiguous() : at::empty(shape, static_cast<at::ScalarType>(type));
  ranks_->broadcast({all}, /*from=*/0);
  return all;
}

NamedGroups TrainRanks::from_leader(const NamedGroups& groups) {
  NamedGroups copies;
  for (const auto& [group, tensors] : groups) {
    NamedTensors copied;
    for (const auto& [name, tensor] : tensors) {
      copied.emplace_back(name, tensor.detach().clone(at::MemoryFormat::Contiguous));
      ranks_->broadcast({copied.back().second}, /*from=*/0);
    }
    copies.emplace_back(group, std::move(copied));
  }
  return copies;
}

std::int64_t TrainRanks::smallest(std::int64_t value) {
  const std::vector<std::int64_t> all = ranks_->gather(value);
  return *std::min_element(all.begin(), all.end());
}

bool TrainRanks::stop_requested() {
  const bool stops = ranks_->any(sfumato::stop_requested());
  all_end_ = all_end_ || stops;
  return stops;
}

void TrainRanks::set_threads(const Config& config) const {
  const auto cores = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  sfumato::set_threads(threads_of_rank(config.performance.threads(), cores, *ranks_));
}

void TrainRanks::require_same_settings(const Config& config) {
  if (alone()) return;
  for (const Section* section : config.sections()) {
    const std::string& name = section->section_name();
    if (name == "performance" || name == "sample") continue;
    std::string values;
    for (const SettingBase* setting : section->settings())
      if (setting->key() != "run.dir" && setting->key() != "data.store")
        values += fmt::format("{}: {}\n", setting->key(), setting->value_yaml());
    ranks_->require_same(fmt::format("the configuration ({}.*)", name), values,
                         "start all processes of a run with the same configuration");
  }
  ranks_->require_same("what the files of model.config or gan.*_config hold", described_by(config),
                       "give all processes the same files");
}

void TrainRanks::require_same(const std::string& name, const std::string& value,
                              const std::string& remedy) {
  ranks_->require_same(name, value, remedy);
}

void TrainRanks::leave_if_all_do() {
  if (all_end_) ranks_->leave();
}

}  // namespace sfumato
