#pragma once
#include <filesystem>

#include "sfumato/generate/pretrained_facts.h"

namespace sfumato {

struct UNet2DConfig;

/// Adds what a diffusers scheduler_config.json says: noise schedule, prediction type, number of
/// timesteps, clipping, variance. Keys that a file leaves out mean what its class takes for them in
/// diffusers. Solvers of the same noise schedule (PNDM, DPM-Solver, Euler, Heun, UniPC, DEIS, ...)
/// count by that schedule. EDMEulerScheduler and EDMDPMSolverMultistepScheduler mean a network of
/// EDM, with their sigma_data and levels. DataError for another family (score-SDE, flow matching,
/// consistency, distilled, a class that is not known) and for a file that is no such JSON.
void add_scheduler_facts(const std::filesystem::path& scheduler_config, PretrainedFacts& facts);

/// Adds what a network's config.json says: size and channels of pictures, and the number of
/// timesteps where it has a table of them.
void add_network_facts(const UNet2DConfig& network, const std::filesystem::path& config_json,
                       PretrainedFacts& facts);

/// For drawing from a network: as adopt_for_training, but what somebody gave wins, with a warning
/// where a binding fact differs.
void adopt_for_sampling(const PretrainedFacts& facts, Config& config);

}  // namespace sfumato
