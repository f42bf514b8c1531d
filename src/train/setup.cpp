#include "sfumato/train/setup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "report/private_file.h"
#include "run/checkpoint_binding.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/printable.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store.h"
#include "sfumato/device/gpu.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/run/public_uses.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/train/batch_loader.h"

namespace sfumato {

void check_store_fits(const RecordStore& store, const std::string& misfit, const Config& config) {
  const auto refuse = [&](const std::string& what) {
    throw DataError(
        fmt::format("record store '{}': {}; prepare the images again with other "
                    "data.* settings or choose another network",
                    store.path().string(), what));
  };
  if (is_holdout(store))
    throw UsageError(fmt::format(
        "record store '{}' holds what was held out from training (data.holdout), and training "
        "never reads it; set data.store to the store beside it",
        store.path().string()));
  if (config.privacy.enabled()) {
    check_holdout_adjacency(store, config.mechanism.adjacency());
    check_part_adjacency(store, config.mechanism.adjacency());
    require_never_public(store);
  }
  if (!misfit.empty()) refuse(misfit);
  if (store.num_classes() != config.data.num_classes())
    refuse(fmt::format("it holds {} classes, data.num_classes is {}", store.num_classes(),
                       config.data.num_classes()));
  const auto check_side = [&](const Setting<int64_t>& setting, int64_t here, const char* what) {
    if (setting() != here && !setting.is_default())
      refuse(fmt::format("its images have {} {}, and {} is {} ({})", here, what, setting.key(),
                         setting(), setting.provenance()));
  };
  const ImageShape shape = image_shape(store);
  check_side(config.data.channels, shape.channels, "channels");
  check_side(config.data.image_size, shape.height, "rows");
  check_side(config.data.image_size, shape.width, "columns");
  const std::vector<std::string>& names = config.data.class_names();
  for (std::size_t c = 0; c < names.size(); ++c)
    if (names[c] != store.class_names()[c])
      refuse(fmt::format("its class {} is '{}', in data.class_names '{}'", c,
                         printable(store.class_names()[c]), printable(names[c])));
}

void adopt_image_size(Config& config) {
  const ImageShape shape = image_shape(RecordStore::open(config.data.store()));
  const auto adopt = [](Setting<int64_t>& setting, int64_t here) {
    if (setting.is_default() && setting() != here)
      (void)setting.assign_text(fmt::format("{}", here), "the record store");  // if it can be that
  };
  adopt(config.data.channels, shape.channels);
  if (shape.width == shape.height) adopt(config.data.image_size, shape.height);
}

void adopt_class_names(Config& config) {
  const RecordStore store = RecordStore::open(config.data.store());
  DataSettings& data = config.data;
  const bool numbers = store.layout().class_names_from == "numbers";
  if (!data.class_names().empty() || numbers || store.num_classes() != data.num_classes() ||
      store.num_classes() == 0)
    return;
  data.class_names.set(store.class_names(), "the record store");
}

std::string batch_misfit(int64_t records, const MechanismPlan& plan) {
  constexpr double kFewest = 8, kMostOff = 2;
  const double mean = plan.sample_rate * static_cast<double>(records);
  std::string text;
  if (mean < kFewest)
    text += fmt::format(
        "\n  {:.3g} of them join a step on average, too few to be heard through its noise: raise "
        "mechanism.sample_rate (a public literal; it changes the noise that epsilon needs)",
        mean);
  const double off = plan.expected_batch_size / std::max(mean, 1e-9);
  if (off > kMostOff || off < 1 / kMostOff)
    text += fmt::format(
        "\n  mechanism.expected_batch_size is {}, and steps hold {:.3g} on average: the gradient "
        "comes out {:.3g} times as {} as its mean; set the divisor to sample_rate times a public "
        "estimate of the number of images",
        plan.expected_batch_size, mean, std::max(off, 1 / off), off > 1 ? "small" : "large");
  if (text.empty()) return text;
  return fmt::format("private: the record store holds {} images, and at sample rate {}{}", records,
                     plan.sample_rate, text);
}

std::string unit_misfit(const RecordStore& store, const DataSettings& data) {
  const bool wants_users = !data.users().empty(), has_users = store.layout().has_users;
  const bool differs = wants_users != has_users ||
                       (has_users && store.records_per_unit() != data.records_per_user());
  if (!differs) return "";
  return fmt::format(
      "private: the record store was prepared for the unit '{}', which is what the run claims, and "
      "the configuration now says '{}' (data.users, data.records_per_user): prepare the images "
      "again if that is meant",
      store.unit(), unit_of_privacy(wants_users, wants_users ? data.records_per_user() : 1));
}

void tell_holder(const std::string& warning, const Config& config,
                 const std::filesystem::path& private_folder) {
  const std::filesystem::path file = private_folder / "warnings.txt";
  std::filesystem::remove(file);
  if (warning.empty()) return;
  const int fd = private_file::open(file, O_WRONLY);
  try {
    private_file::append(fd, warning + '\n', file);
  } catch (...) {
    ::close(fd);
    throw;
  }
  ::close(fd);
  if (config.run.private_warnings()) log_warning(warning);
}

void verify_before_training(Generator& generator, GradientStep& gradients) {
  // By hashes, which need no copies beside what is measured next.
  const auto hashes = [&] {
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& [name, tensors] : generator.state()) {
      Checkpoint group;
      group.groups = {tensor_group(name, tensors)};
      all.emplace_back(name, checkpoint_sha256(group));
    }
    return all;
  };
  const auto before = hashes();
  gradients.verify();
  const auto after = hashes();
  for (size_t i = 0; i < before.size(); ++i)
    if (i >= after.size() || after[i] != before[i])
      throw PrivacyError(fmt::format(
          "'{}' of the generator changes with the images of a batch, before any noise: what "
          "follows from images must be a gradient, which is clipped; remove running statistics and "
          "caches",
          before[i].first));
}

StepOptions step_options(const Config& config) {
  return {config.performance.layer_algorithm(),
          // Not on the CPU: asking for a GPU loads CUDA.
          std::make_shared<Tuner>(chosen_device(config.performance.device()) == ComputeDevice::kCuda
                                      ? Tuner::default_memory()
                                      : std::filesystem::path{}),
          config.performance.cuda_graph()};
}

OptimizerOptions optimizer_options(const Config& config) {
  const OptimizerSettings& o = config.optimizer;
  OptimizerOptions options;
  options.kind = o.name();
  options.beta1 = o.beta1();
  options.beta2 = o.beta2();
  options.eps = o.eps();
  options.weight_decay = o.weight_decay();
  options.momentum = o.momentum();
  return options;
}

}  // namespace sfumato
