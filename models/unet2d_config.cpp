#include "sfumato/models/unet2d_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "models/unet2d_rules.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

/// Converts one JSON value into a field; returns what was expected if it cannot.
template <typename T>
std::string read(const nlohmann::json& value, T& field);

template <>
std::string read(const nlohmann::json& value, bool& field) {
  if (!value.is_boolean()) return "true or false";
  field = value.get<bool>();
  return {};
}
template <>
std::string read(const nlohmann::json& value, int64_t& field) {
  if (!value.is_number_integer()) return "a whole number";
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{1} << 62)
    return "a smaller number";
  field = value.get<int64_t>();
  return {};
}
template <>
std::string read(const nlohmann::json& value, double& field) {
  if (!value.is_number()) return "a number";
  field = value.get<double>();
  return {};
}
template <>
std::string read(const nlohmann::json& value, std::string& field) {
  if (!value.is_string()) return "a string";
  field = value.get<std::string>();
  return {};
}
template <typename T>
std::string read(const nlohmann::json& value, std::vector<T>& field) {
  std::vector<T> all;
  if (!value.is_array()) return "a list";
  for (const nlohmann::json& element : value) {
    T one{};
    if (const std::string expected = read(element, one); !expected.empty())
      return "a list, each entry " + expected;
    all.push_back(std::move(one));
  }
  field = std::move(all);
  return {};
}
template <typename T>
std::string read(const nlohmann::json& value, std::optional<T>& field) {
  if (value.is_null()) {
    field.reset();
    return {};
  }
  T one{};
  if (const std::string expected = read(value, one); !expected.empty())
    return expected + " or null";
  field = std::move(one);
  return {};
}
/// A side of square samples, or [height, width].
template <>
std::string read(const nlohmann::json& value, std::array<int64_t, 2>& field) {
  if (value.is_number_integer()) {
    field[0] = field[1] = value.get<int64_t>();
    return {};
  }
  std::vector<int64_t> sides;
  if (!read(value, sides).empty() || sides.size() != 2) return "a whole number, [height, width]";
  field = {sides[0], sides[1]};
  return {};
}

/// null is diffusers' way of saying "conv" here.
std::string read_resampler(const nlohmann::json& value, std::string& field) {
  if (value.is_null()) {
    field = "conv";
    return {};
  }
  return read(value, field);
}

using Reader = std::function<std::string(const nlohmann::json&)>;

std::map<std::string, Reader> readers(UNet2DConfig& c) {
  const auto into = [](auto& field) -> Reader {
    return [&field](const nlohmann::json& value) { return read(value, field); };
  };
  return {
      {"sample_size", into(c.sample_size)},
      {"in_channels", into(c.in_channels)},
      {"out_channels", into(c.out_channels)},
      {"center_input_sample", into(c.center_input_sample)},
      {"time_embedding_type", into(c.time_embedding_type)},
      {"time_embedding_dim", into(c.time_embedding_dim)},
      {"freq_shift", into(c.freq_shift)},
      {"flip_sin_to_cos", into(c.flip_sin_to_cos)},
      {"down_block_types", into(c.down_block_types)},
      {"mid_block_type", into(c.mid_block_type)},
      {"up_block_types", into(c.up_block_types)},
      {"block_out_channels", into(c.block_out_channels)},
      {"layers_per_block", into(c.layers_per_block)},
      {"mid_block_scale_factor", into(c.mid_block_scale_factor)},
      {"downsample_padding", into(c.downsample_padding)},
      {"downsample_type",
       [&c](const nlohmann::json& value) { return read_resampler(value, c.downsample_type); }},
      {"upsample_type",
       [&c](const nlohmann::json& value) { return read_resampler(value, c.upsample_type); }},
      {"dropout", into(c.dropout)},
      {"act_fn", into(c.act_fn)},
      {"attention_head_dim", into(c.attention_head_dim)},
      {"norm_num_groups", into(c.norm_num_groups)},
      {"attn_norm_num_groups", into(c.attn_norm_num_groups)},
      {"norm_eps", into(c.norm_eps)},
      {"resnet_time_scale_shift", into(c.resnet_time_scale_shift)},
      {"add_attention", into(c.add_attention)},
      {"class_embed_type", into(c.class_embed_type)},
      {"num_class_embeds", into(c.num_class_embeds)},
      {"num_train_timesteps", into(c.num_train_timesteps)},
      {"model_channels", into(c.model_channels)},
      {"class_embed_in_time_features", into(c.class_embed_in_time_features)},
  };
}

template <typename T>
nlohmann::json optional_json(const std::optional<T>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}

/// Whole numbers without a fraction, as Python's defaults write them.
nlohmann::json plain_number(double value) {
  constexpr double kExact = 1e15;
  if (value == std::floor(value) && std::abs(value) < kExact) return static_cast<int64_t>(value);
  return value;
}

}  // namespace

UNet2DConfig UNet2DConfig::from_json(const nlohmann::json& json_config, const std::string& what) {
  ConfigComplaints complaints(what);
  UNet2DConfig config;
  if (!json_config.is_object()) complaints.add("must be a JSON object");
  complaints.throw_if_any();

  const std::map<std::string, Reader> known = readers(config);
  std::vector<std::string> names;
  for (const auto& [key, reader] : known) names.push_back(key);
  for (const auto& [key, value] : json_config.items()) {
    if (key == "_class_name" && value != "UNet2DModel")
      complaints.add(fmt::format("_class_name: {}; only UNet2DModel is supported", value.dump()));
    if (key.starts_with("_")) continue;
    const auto found = known.find(key);
    if (found == known.end()) {
      log_warning(
          fmt::format("{}: unknown key '{}' is ignored{}", what, key, did_you_mean(key, names)));
      continue;
    }
    if (const std::string expected = found->second(value); !expected.empty())
      complaints.add(fmt::format("{}: {}; must be {}", key, value.dump(), expected));
  }
  complaints.throw_if_any();  // rules between fields make sense for well-typed values only
  config.validate(what);
  return config;
}

nlohmann::json UNet2DConfig::to_json() const {
  nlohmann::json out = {
      {"_class_name", "UNet2DModel"},
      {"_diffusers_version", kDiffusersVersion},
      {"sample_size", nullptr},
      {"in_channels", in_channels},
      {"out_channels", out_channels},
      {"center_input_sample", center_input_sample},
      {"time_embedding_type", time_embedding_type},
      {"time_embedding_dim", optional_json(time_embedding_dim)},
      {"freq_shift", plain_number(freq_shift)},
      {"flip_sin_to_cos", flip_sin_to_cos},
      {"down_block_types", down_block_types},
      {"mid_block_type", optional_json(mid_block_type)},
      {"up_block_types", up_block_types},
      {"block_out_channels", block_out_channels},
      {"layers_per_block", layers_per_block},
      {"mid_block_scale_factor", plain_number(mid_block_scale_factor)},
      {"downsample_padding", downsample_padding},
      {"downsample_type", downsample_type},
      {"upsample_type", upsample_type},
      {"dropout", dropout},
      {"act_fn", act_fn},
      {"attention_head_dim", optional_json(attention_head_dim)},
      {"norm_num_groups", optional_json(norm_num_groups)},
      {"attn_norm_num_groups", optional_json(attn_norm_num_groups)},
      {"norm_eps", norm_eps},
      {"resnet_time_scale_shift", resnet_time_scale_shift},
      {"add_attention", add_attention},
      {"class_embed_type", optional_json(class_embed_type)},
      {"num_class_embeds", optional_json(num_class_embeds)},
      {"num_train_timesteps", optional_json(num_train_timesteps)},
  };
  // Not keys of diffusers.
  if (model_channels) out["model_channels"] = *model_channels;
  if (class_embed_in_time_features) out["class_embed_in_time_features"] = true;
  if (sample_size)
    out["sample_size"] = (*sample_size)[0] == (*sample_size)[1] ? nlohmann::json((*sample_size)[0])
                                                                : nlohmann::json(*sample_size);
  return out;
}

bool is_unet2d_config(const nlohmann::json& json_config) {
  if (!json_config.is_object()) return false;
  const auto name = json_config.find("_class_name");
  if (name == json_config.end()) return json_config.contains("block_out_channels");
  return name->is_string() && name->get_ref<const std::string&>().starts_with("UNet2D");
}

std::string plain_block_type(const std::string& type) {
  constexpr std::string_view kPrefix = "UNetRes";
  return type.starts_with(kPrefix) ? type.substr(kPrefix.size()) : type;
}

bool has_ddpmpp_blocks(const UNet2DConfig& config) {
  const auto is_one = [](const std::string& type) {
    return type.find("DDPMpp") != std::string::npos;
  };
  return std::ranges::any_of(config.down_block_types, is_one) ||
         std::ranges::any_of(config.up_block_types, is_one);
}

ImageShape UNet2DConfig::image_shape() const {
  const int64_t side = 4 * size_multiple();
  const auto [height, width] = sample_size.value_or(std::array{side, side});
  return {in_channels, height, width};
}

}  // namespace sfumato
