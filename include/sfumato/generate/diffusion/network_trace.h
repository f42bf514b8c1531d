#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "sfumato/nn/tape.h"

namespace sfumato {

/// One forward pass, on the CPU, of the network that a config.json describes, with one input, whose
/// pixels are zero as the weights are: for what `tape` hears of its layers. DataError for a
/// configuration of no network.
void trace_network(const nlohmann::json& config, Tape& tape);

/// Trainable parameters of the network that a config.json describes; DataError as trace_network.
std::int64_t trainable_parameters(const nlohmann::json& config);

}  // namespace sfumato
