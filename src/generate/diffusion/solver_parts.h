#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {

// What solvers of networks with a schedule of timesteps share.

/// The timesteps of `options`, from noisy to clean. UsageError: as timestep_grid; noise prediction
/// at a timestep that holds no image (zero SNR).
std::vector<int64_t> visited_timesteps(const NoiseSchedule& schedule, const SolverOptions& options);

/// UsageError where noise is predicted at a timestep that holds no image (zero SNR).
void refuse_without_image(const NoiseSchedule& schedule, const SolverOptions& options,
                          const std::vector<int64_t>& timesteps);

/// Whether diffusers makes one trailing timestep more than `steps`: from numpy.arange(T, 0, -T /
/// steps), where T / (T / steps) rounds to more.
bool has_a_timestep_too_many(int64_t total, int64_t steps);

/// x_0 as the network's output at x = signal x_0 + noise eps tells it, clipped if `options` say so.
at::Tensor clean_sample(const SolverOptions& options, const at::Tensor& output, const at::Tensor& x,
                        float signal, float noise);

/// The fields of scheduler_config.json that all schedulers of diffusers with such a schedule have.
nlohmann::ordered_json common_scheduler_config(const std::string& diffusers_class,
                                               const NoiseScheduleOptions& schedule,
                                               const SolverOptions& options);

/// Solver::start_defect() of one whose first timestep is `first`.
std::string defect_of_start(const NoiseSchedule& schedule, const SolverOptions& options,
                            int64_t first);

}  // namespace sfumato
