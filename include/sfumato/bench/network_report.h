#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// What training a configuration would take, found by running its network on synthetic images. No
/// private data is touched.
struct NetworkReport {
  std::string network;                       ///< which: what trains on private examples
  int64_t parameters = 0, trainable = 0;     ///< elements
  int64_t tensors = 0, tensors_covered = 0;  ///< trainable tensors; those with a per-example rule
  /// Per layer with a choice of algorithm, for `layer_examples` examples.
  std::vector<LayerChoice> layers;
  int64_t layer_examples = 0;
  ComputeDevice device = ComputeDevice::kCpu;
  double held_element_bytes = 4;  ///< of what layers hold: 2 in bf16

  /// Weights of all networks, averages, moments of optimizers, and copies that public steps take.
  int64_t state_bytes = 0;
  int64_t peak_bytes_one = 0, peak_bytes_two = 0;  ///< of a step over one and two examples
  int64_t budget_bytes = 0;
  int64_t physical_batch = 0;
  int64_t peak_bytes = 0;  ///< expected for the physical batch

  std::optional<MechanismPlan> plan;  ///< empty where the configuration fixes no noise
  double epsilon = 0;                 ///< of all steps of the plan
};

/// Multiply-adds of one example's forward pass through a layer, times two.
double forward_flops(const LayerChoice& layer);
/// Bytes that one example's gradient holds until the norm over all parameters is known, in elements
/// of `element_bytes`.
double held_bytes_per_example(const LayerChoice& layer, double element_bytes = 4);

/// Errors as make_network; PrivacyError if a trainable parameter has no per-example gradient or
/// the network mixes examples; DeviceError if one example does not fit the memory. The unit of
/// privacy is taken to be one image.
NetworkReport report_network(const Config& config);

}  // namespace sfumato
