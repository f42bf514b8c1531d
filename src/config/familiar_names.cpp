#include "sfumato/config/familiar_names.h"

#include <fmt/format.h>

#include <algorithm>

namespace sfumato {
namespace {

constexpr FamiliarName kNames[] = {
    // The same under another name: taken wherever the setting would be.
    {"lr", "optimizer.learning_rate", ""},
    {"epsilon", "mechanism.target_epsilon", ""},
    {"target_delta", "mechanism.delta", ""},
    {"max_grad_norm", "mechanism.clip_norm_l2", ""},
    {"l2_norm_clip", "mechanism.clip_norm_l2", ""},
    {"max_train_steps", "mechanism.steps", ""},
    {"num_train_steps", "mechanism.steps", ""},
    {"max_physical_batch_size", "performance.physical_batch", ""},
    {"noise_multiplicity", "diffusion.draws", ""},
    {"resolution", "data.image_size", ""},
    {"train_data_dir", "data.source", ""},
    {"output_dir", "run.dir", ""},
    {"pretrained_model_name_or_path", "model.init", ""},
    {"num_inference_steps", "sample.steps", ""},
    // Near, but not the same.
    {"epochs", "mechanism.steps",
     "batches are drawn anew in every step, so there are no epochs; about as many pass in epochs / "
     "mechanism.sample_rate steps, which `sfumato plan --config FILE --dataset-size N --epochs E` "
     "computes from a public N"},
    {"num_epochs", "mechanism.steps",
     "as epochs: see `sfumato plan --config FILE --dataset-size N --epochs E`"},
    {"num_train_epochs", "mechanism.steps",
     "as epochs: see `sfumato plan --config FILE --dataset-size N --epochs E`"},
    {"batch_size", "mechanism.expected_batch_size",
     "how many images join a step is random: mechanism.sample_rate decides it, and "
     "mechanism.expected_batch_size is their public mean, by which the noisy sum is divided; set "
     "both, or let `sfumato plan --config FILE --dataset-size N` say them. How many are computed "
     "together is performance.physical_batch"},
    {"train_batch_size", "mechanism.expected_batch_size",
     "as batch_size: set it and mechanism.sample_rate"},
    {"num_microbatches", "performance.physical_batch",
     "every image is clipped by itself, whatever is computed together; nothing has to be set"},
    {"noise_scale", "mechanism.noise_multiplier",
     "there noise is a multiple of the clip norm; if yours is a standard deviation, divide it by "
     "mechanism.clip_norm_l2"},
    {"sigma", "mechanism.noise_multiplier",
     "there noise is a multiple of the clip norm; if yours is a standard deviation, divide it by "
     "mechanism.clip_norm_l2"},
    {"accumulation", "performance.physical_batch",
     "a step of any size is added up from physical batches by itself; nothing has to be set"},
    {"gradient_accumulation_steps", "performance.physical_batch",
     "a step of any size is added up from physical batches by itself; nothing has to be set"},
    {"guidance_scale", "sample.guidance",
     "that is w in (1+w) conditional - w unconditional: one less than a guidance_scale"},
    {"mixed_precision", "performance.precision",
     "that is fp32, tf32, bf16 or auto; there is no fp16"},
    {"poisson_sampling", "", "sampling is always Poisson; nothing has to be set"},
    {"secure_mode", "", "noise is always from a cryptographic generator; nothing has to be set"},
    {"shuffle", "", "sampling is always Poisson; there is no order to shuffle"},
};

}  // namespace

std::span<const FamiliarName> familiar_names() { return kNames; }

const FamiliarName* find_familiar_name(std::string_view name) {
  const auto plain = [](char c) {
    return c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  for (const FamiliarName& row : kNames)
    if (std::ranges::equal(std::string_view(row.name), name, {}, {}, plain)) return &row;
  return nullptr;
}

std::string explanation_of(const FamiliarName& name) {
  if (name.is_alias()) return fmt::format("'{}' is {} here", name.name, name.setting);
  if (name.setting[0] == '\0') return fmt::format("'{}': {}", name.name, name.says);
  return fmt::format("'{}' is not quite {}: {}", name.name, name.setting, name.says);
}

}  // namespace sfumato
