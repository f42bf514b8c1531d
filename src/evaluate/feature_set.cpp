#include "sfumato/evaluate/feature_set.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/io/npy.h"
#include "sfumato/io/safetensors.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

at::Tensor read_npy(const fs::path& file) {
  NpyReader array(file);
  const bool wide = array.type() == "f8";
  if (array.shape().size() != 2 || (!wide && array.type() != "f4"))
    throw DataError(fmt::format(
        "'{}' of shape {} and type {} holds no features: expected float32 or float64, [N, d]",
        array.place(), fmt::join(array.shape(), "x"), array.type()));
  if (array.shape()[1] < 1) throw DataError(fmt::format("'{}' holds empty rows", array.place()));
  at::Tensor values = at::empty({array.count(), array.shape()[1]}, wide ? at::kDouble : at::kFloat);
  auto* out = static_cast<std::uint8_t*>(values.mutable_data_ptr());
  const auto size = static_cast<std::size_t>(array.record_bytes());
  for (int64_t i = 0; i < array.count(); ++i, out += size) array.next({out, size});
  std::uint8_t none = 0;
  array.next({&none, 0});  // checks that nothing follows
  return values.to(at::kFloat);
}

at::Tensor float_tensor(const SafetensorsFile& file, const std::string& name) {
  const at::Tensor values = to_tensor(file.info(name));
  if (!values.is_floating_point())
    throw DataError(
        fmt::format("tensor '{}' of '{}' holds integers, no features", name, file.path().string()));
  return values.to(at::kFloat);
}

FeatureSet read_tensors(const fs::path& path) {
  const SafetensorsFile file(path);
  if (!file.contains("features") && file.names().size() != 1)
    throw DataError(
        fmt::format("'{}' holds the tensors {}; the features [N, d] are called "
                    "'features'",
                    path.string(), fmt::join(file.names(), ", ")));
  FeatureSet set;
  set.features = float_tensor(file, file.contains("features") ? "features" : file.names().front());
  if (file.contains("logits")) set.logits = float_tensor(file, "logits");
  const auto note = [&](const char* key, std::string& out) {
    const auto at = file.metadata().find(key);
    if (at != file.metadata().end()) out = at->second;
  };
  note("network", set.facts.network);
  note("weights_sha256", set.facts.weights_sha256);
  note("preprocessing", set.facts.preprocessing);
  return set;
}

}  // namespace

void require_alike(const FeatureFacts& a, const FeatureFacts& b) {
  if (a == b) return;
  const auto described = [](const FeatureFacts& facts) {
    return fmt::format("{} ({}, {}, {} dimensions)", facts.network, facts.weights_sha256,
                       facts.preprocessing, facts.dimension);
  };
  throw UsageError(
      fmt::format("features of different networks are not compared: {} and {}; compute "
                  "both in the same way",
                  described(a), described(b)));
}

void check_features(const FeatureSet& set, const std::string& what, int64_t least) {
  if (set.features.dim() != 2 || set.features.size(1) < 1)
    throw DataError(fmt::format("the features of {} are no matrix [N, d]", what));
  if (set.count() < least)
    throw DataError(fmt::format("{} has {} images, and at least {} are needed; give more (--count)",
                                what, set.count(), least));
  if (set.logits.defined() && (set.logits.dim() != 2 || set.logits.size(0) != set.count()))
    throw DataError(fmt::format("the logits of {} are not one row for each image", what));
  const bool finite = set.features.isfinite().all().item<bool>() &&
                      (!set.logits.defined() || set.logits.isfinite().all().item<bool>());
  if (!finite)
    throw DataError(
        fmt::format("the features of {} hold values that are not finite (NaN or "
                    "infinity); mend them, or leave such images out",
                    what));
}

FeatureSet read_features(const fs::path& file) {
  FeatureSet set;
  const bool tensors = file.extension() == ".safetensors";
  set.facts.network = "features of a file";
  set.facts.weights_sha256 = set.facts.preprocessing = "not said";
  if (tensors) {
    FeatureSet read = read_tensors(file);
    if (read.facts.network.empty()) read.facts.network = set.facts.network;
    if (read.facts.weights_sha256.empty()) read.facts.weights_sha256 = "not said";
    if (read.facts.preprocessing.empty()) read.facts.preprocessing = "not said";
    set = std::move(read);
  } else {
    set.features = read_npy(file);
  }
  set.facts.distance = "FD of given features";
  set.facts.dimension = set.features.dim() == 2 ? set.features.size(1) : 0;
  return set;
}

}  // namespace sfumato
