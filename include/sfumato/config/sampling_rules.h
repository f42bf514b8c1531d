#pragma once
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/sections.h"

namespace sfumato {

/// Whether a setting can change what the solver draws: one that is no other solver's alone.
bool sampler_reads(Sampler sampler, const std::string& setting);

/// What is wrong with how images are drawn, in sentences with the remedy: a solver that such
/// networks do not have, a setting that the solver does not read, combinations that draw nothing.
/// `parameterization`: nothing where the files beside a network may still say it; then only what is
/// wrong with either.
std::vector<std::string> sampling_mistakes(const SampleSettings& sample,
                                           std::optional<Parameterization> parameterization);

/// The same of what is trained.
std::vector<std::string> diffusion_mistakes(const DiffusionSettings& diffusion,
                                            std::optional<Parameterization> parameterization);

}  // namespace sfumato
