#pragma once
#include <string>
#include <vector>

#include "sfumato/bench/gpu_limits.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

/// What a projection takes for granted about a GPU and about software that was not run on it. None
/// of it is measured.
struct ProjectionAssumptions {
  double matrix_fraction = 0.5;  ///< of the tensor cores' rate: libraries' convolutions, products
  double weight_gradient_fraction = 0.5;  ///< conv_weight_grad, of the library's rate for the sum
  double full_width = 128;        ///< fewer output channels use that share of matrix_fraction
  double memory_fraction = 0.85;  ///< of the memory's bytes per second, by streaming kernels
  double update_fraction = 0.75;  ///< the same by private_update, which computes noise meanwhile
  double activation_passes = 8;   ///< reads and writes of every layer's input by what is no matrix
                                  ///< product: norms, activations and sums, forward and backward
  double activation_copies = 2;   ///< of every layer's input held for the backward pass: before and
                                  ///< after its norm
  double launch_seconds = 2e-6;   ///< of every kernel of a recorded step, besides its work
  double launches_per_layer = 8;  ///< of either step
  double more_launches_per_layer = 1;  ///< of the private step: a norm's second stage
  double link_bytes_per_s = 50e9;      ///< out of every GPU to another node: a card of 400 Gbit/s
  double link_fraction = 0.8;          ///< of that, by rings of NCCL
};

/// A part of a step. Seconds of the plain and of the private step.
struct ProjectedTerm {
  std::string name, how;
  double plain = 0, priv = 0;
};

/// A training step of one physical batch in bfloat16 with Adam, by a roofline: each part takes the
/// larger of its time for operations and its time for bytes. No part was run.
struct StepProjection {
  std::vector<ProjectedTerm> terms;
  double plain_seconds = 0, private_seconds = 0;
  double plain_bytes = 0, private_bytes = 0;  ///< of tensors, at the peak
  double forward_flops = 0;                   ///< of the batch

  double time_ratio() const { return private_seconds / plain_seconds; }
  double memory_ratio() const { return private_bytes / plain_bytes; }
};

/// `layers` as layers_of gives them for `draws` draws; every layer keeps its per-example gradients.
StepProjection project_step(const std::vector<LayerWork>& layers, double parameters,
                            int64_t examples, int64_t draws, const GpuLimits& gpu,
                            const ProjectionAssumptions& assumptions);

/// A private logical step on several GPUs: each adds its share of the physical batches, then all
/// sum the gradients as integers, each updates a slice of the weights, and all get the others'.
/// Nothing of it overlaps.
struct RanksProjection {
  std::vector<ProjectedTerm> terms;  ///< plain: of one GPU; priv: of each of several
  double alone_seconds = 0, together_seconds = 0;
  double sent_bytes = 0;  ///< by every GPU in a ring
  int64_t ranks = 1;

  double efficiency() const {
    return alone_seconds / (static_cast<double>(ranks) * together_seconds);
  }
};

/// `step`: of project_step for the physical batch of `examples`. UsageError where `batch` is no
/// multiple of ranks x examples.
RanksProjection project_ranks(const StepProjection& step, double parameters, int64_t examples,
                              int64_t batch, int64_t ranks, const GpuLimits& gpu,
                              const ProjectionAssumptions& assumptions);

/// The smallest weight_gradient_fraction with which time_ratio is at most `ratio`; infinite where
/// none is enough.
double fraction_needed(const std::vector<LayerWork>& layers, double parameters, int64_t examples,
                       int64_t draws, const GpuLimits& gpu, ProjectionAssumptions assumptions,
                       double ratio);

/// Least bytes of an engine that forms a float32 gradient for every draw (hooks, Opacus): weights,
/// gradients, moments, one gradient per network input, and activations in bfloat16.
double per_draw_engine_bytes(const std::vector<LayerWork>& layers, double parameters,
                             int64_t examples, int64_t draws,
                             const ProjectionAssumptions& assumptions);

}  // namespace sfumato
