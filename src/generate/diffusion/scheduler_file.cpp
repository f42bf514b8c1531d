// What diffusers' scheduler_config.json says about the network beside it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "generate/diffusion/scheduler_classes.h"
#include "sfumato/core/choices.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"
#include "sfumato/generate/diffusion/network_facts.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

using nlohmann::json;

class SchedulerReader {
 public:
  SchedulerReader(const std::filesystem::path& path, PretrainedFacts& facts)
      : file_(path.string()), json_(read_python_json(path)), facts_(facts) {}

  void read() {
    if (!json_.is_object()) throw DataError(fmt::format("'{}' is not a JSON object", file_));
    find_class();
    name_unknown_keys();
    read_parameterization();
    read_prediction();
    if (is_edm())
      read_levels();
    else
      read_schedule();
    read_clipping();
    read_variance();
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw DataError(
        fmt::format("'{}' {}; such networks are neither trained nor sampled; if this one was "
                    "trained otherwise, replace the file by the scheduler_config.json of a "
                    "DDPMScheduler with its beta_schedule and prediction_type",
                    file_, what));
  }
  [[noreturn]] void ill_typed(const char* key, const char* expected) const {
    throw DataError(
        fmt::format("'{}': {} is {}; must be {}", file_, key, json_.at(key).dump(), expected));
  }

  bool has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }
  std::optional<std::string> text(const char* key) const {
    if (!has(key)) return std::nullopt;
    if (!json_.at(key).is_string()) ill_typed(key, "a text");
    return json_.at(key).get<std::string>();
  }
  std::optional<bool> flag(const char* key) const {
    if (!has(key)) return std::nullopt;
    if (!json_.at(key).is_boolean()) ill_typed(key, "true or false");
    return json_.at(key).get<bool>();
  }
  std::optional<double> number(const char* key) const {
    if (!has(key)) return std::nullopt;
    if (!json_.at(key).is_number()) ill_typed(key, "a number");
    return json_.at(key).get<double>();
  }

  void add(const char* setting, const char* key, const std::string& value, bool binding = true) {
    facts_.facts.push_back({setting, value, file_, fmt::format("{} is {}", key, value), binding});
  }
  /// What the key says, or what the class takes where it is not there.
  void add_or_default(const char* setting, const char* key, const std::optional<std::string>& value,
                      const std::string& otherwise) {
    if (value)
      add(setting, key, *value);
    else if (known_ != nullptr)
      facts_.facts.push_back(
          {setting, otherwise, file_,
           fmt::format("{} is not given, which means {} to a {}", key, otherwise, class_)});
  }
  void add_unusable(const char* setting, const std::string& what, bool binding = true) {
    facts_.unusable.push_back({setting, fmt::format("'{}': {}", file_, what), binding});
  }

  void find_class() {
    if (const std::optional<std::string> name = text("_class_name")) {
      class_ = name->starts_with("Flax") ? name->substr(4) : *name;
      known_ = known_scheduler_class(class_);
      if (known_ == nullptr) {
        const std::string family = other_scheduler_family(class_);
        refuse(fmt::format("is of a {}: {}", *name,
                           family.empty()
                               ? kNoPlainSchedule + did_you_mean(class_, known_scheduler_classes())
                               : family));
      }
    } else if (has("sigma_max") || has("sigma_min") || has("sigma_data")) {
      refuse("names no scheduler (_class_name) and has levels sigma of its own");
    }
    if (flag("use_flow_sigmas").value_or(false))
      refuse(fmt::format("has use_flow_sigmas: {}", kFlow));
    if (text("timestep_type").value_or("discrete") != "discrete")
      refuse("has timestep_type continuous: EDM preconditioning, whose networks take log sigma");
  }

  void name_unknown_keys() const {
    std::vector<std::string> unknown;
    for (const auto& [key, value] : json_.items())
      if (!key.starts_with("_") &&
          std::ranges::find(known_scheduler_keys(), key) == known_scheduler_keys().end())
        unknown.push_back(
            fmt::format("'{}'{}", printable(key), did_you_mean(key, known_scheduler_keys())));
    if (!unknown.empty())
      log_warning(fmt::format("'{}': unknown key{} ignored: {}", file_,
                              unknown.size() == 1 ? " is" : "s are", fmt::join(unknown, ", ")));
  }

  bool is_edm() const { return known_ != nullptr && known_->edm; }

  void read_parameterization() {
    if (known_ == nullptr) return;
    const char* meant = is_edm() ? "edm" : "vp";
    facts_.facts.push_back({"diffusion.parameterization", meant, file_,
                            fmt::format("{} is for networks of {}", class_, meant)});
  }

  /// Of EDM: what the network was trained with, and habits of drawing from it.
  void read_levels() {
    const auto printed = [](double value) { return fmt::format("{}", value); };
    if (const std::optional<double> data = number("sigma_data"))
      add("diffusion.sigma_data", "sigma_data", printed(*data));
    else
      add_or_default("diffusion.sigma_data", "sigma_data", std::nullopt, "0.5");
    for (const auto& [setting, key] : {std::pair{"sample.sigma_min", "sigma_min"},
                                       {"sample.sigma_max", "sigma_max"},
                                       {"sample.rho", "rho"}})
      if (const std::optional<double> value = number(key))
        add(setting, key, printed(*value), /*binding=*/false);
  }

  void read_prediction() {
    std::optional<std::string> prediction = text("prediction_type");
    if (prediction == "original_sample") prediction = "sample";  // an old name
    if (const std::optional<bool> old = flag("predict_epsilon")) {
      const std::string meant = *old ? "epsilon" : "sample";
      if (!prediction)
        return facts_.facts.push_back(
            {"diffusion.prediction", meant, file_,
             fmt::format("predict_epsilon is {}, the old way to say prediction_type {}", *old,
                         meant)});
      if (*prediction != meant)
        return add_unusable(
            "diffusion.prediction",
            fmt::format("predict_epsilon is {}, which means {}, and prediction_type "
                        "is {}; remove the one that is wrong",
                        *old, meant, json(*prediction).dump()));
    }
    if (prediction && prediction->starts_with("flow"))
      refuse(fmt::format("has prediction_type {}: {}", *prediction, kFlow));
    std::vector<std::string> allowed = names_of<Prediction>();
    if (is_edm()) std::erase(allowed, to_string(Prediction::kSample));
    if (prediction && std::ranges::find(allowed, *prediction) == allowed.end())
      add_unusable("diffusion.prediction",
                   fmt::format("prediction_type is {}; known are {}{}", json(*prediction).dump(),
                               fmt::join(allowed, ", "), did_you_mean(*prediction, allowed)));
    else
      add_or_default("diffusion.prediction", "prediction_type", prediction, "epsilon");
  }

  /// Of networks with timesteps.
  void read_schedule() {
    const std::optional<std::string> schedule = text("beta_schedule");
    const std::vector<std::string> allowed = names_of<BetaSchedule>();
    if (has("trained_betas"))
      add_unusable("diffusion.schedule",
                   "trained_betas is a list of its own β, which is not supported");
    else if (schedule && std::ranges::find(allowed, *schedule) == allowed.end())
      add_unusable("diffusion.schedule",
                   fmt::format("beta_schedule is {}; known are {}{}", json(*schedule).dump(),
                               fmt::join(allowed, ", "), did_you_mean(*schedule, allowed)));
    else
      add_or_default("diffusion.schedule", "beta_schedule", schedule, "linear");

    const std::optional<double> steps = number("num_train_timesteps");
    constexpr double kMost = 1e15;
    if (steps && (*steps != std::floor(*steps) || std::abs(*steps) > kMost))
      ill_typed("num_train_timesteps", "a whole number");
    add_or_default(
        "diffusion.num_train_timesteps", "num_train_timesteps",
        steps ? std::optional(fmt::format("{}", static_cast<int64_t>(*steps))) : std::nullopt,
        "1000");
    const SchedulerClass fallback;
    const SchedulerClass& of_class = known_ != nullptr ? *known_ : fallback;
    const auto printed = [](std::optional<double> value) {
      return value ? std::optional(fmt::format("{}", *value)) : std::nullopt;
    };
    add_or_default("diffusion.beta_start", "beta_start", printed(number("beta_start")),
                   fmt::format("{}", of_class.beta_start));
    add_or_default("diffusion.beta_end", "beta_end", printed(number("beta_end")),
                   fmt::format("{}", of_class.beta_end));
    const std::optional<bool> rescale = flag("rescale_betas_zero_snr");
    add_or_default("diffusion.rescale_betas_zero_snr", "rescale_betas_zero_snr",
                   rescale ? std::optional<std::string>(*rescale ? "true" : "false") : std::nullopt,
                   "false");
  }

  /// Dynamic thresholding divides by s = clamp(quantile of |x|, 1, sample_max_value) after clipping
  /// to s; with a greatest value of 1 s is 1, whatever the quantile: plain clipping.
  void read_clipping() {
    const std::optional<double> range = number("clip_sample_range");
    if (flag("thresholding").value_or(false)) {
      const double most = number("sample_max_value").value_or(1.0);
      if (most != 1.0)
        add_unusable("sample.clip_sample",
                     fmt::format("thresholding is true and sample_max_value {}: dynamic "
                                 "thresholding, which is not supported (it is plain clipping "
                                 "where sample_max_value is 1)",
                                 most),
                     /*binding=*/false);
      else
        facts_.facts.push_back(
            {"sample.clip_sample", "true", file_,
             "thresholding is true and sample_max_value 1, which is clipping to 1", false});
      return;  // clip_sample is not looked at
    }
    const std::optional<bool> clip = flag("clip_sample");
    if (clip) add("sample.clip_sample", "clip_sample", *clip ? "true" : "false", false);
    if (range && clip.value_or(true))
      add("sample.clip_sample_range", "clip_sample_range", fmt::format("{}", *range));
  }

  void read_variance() {
    const std::optional<std::string> variance = text("variance_type");
    if (!variance) return;
    if (*variance == "fixed_large_log")
      add_unusable("sample.variance",
                   "variance_type is fixed_large_log, for which diffusers takes the square root of "
                   "the negative number log β, and with which ddpm draws nothing (fixed_large is "
                   "what was meant)",
                   /*binding=*/false);
    else if (variance->starts_with("learned"))
      add_unusable(
          "sample.variance",
          fmt::format("variance_type is {}, which needs a network that predicts it", *variance),
          /*binding=*/false);
    else
      add("sample.variance", "variance_type", *variance, /*binding=*/false);
  }

  std::string file_;
  json json_;
  PretrainedFacts& facts_;
  std::string class_;
  const SchedulerClass* known_ = nullptr;
};

}  // namespace

void add_scheduler_facts(const std::filesystem::path& scheduler_config, PretrainedFacts& facts) {
  SchedulerReader(scheduler_config, facts).read();
}

}  // namespace sfumato
