#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/models/unet2d.h"

namespace sfumato {

/// Rows of the class table that a configuration needs: the classes, and one more for "no label"
/// where labels are dropped; 0 for unconditional training.
int64_t class_rows(const Config& config);

/// The network of a configuration: loaded from model.init or made from model.config and
/// initialised by run.seed; parameters that match no pattern of model.trainable are frozen.
/// UsageError for a pattern without a match, DataError for a bad checkpoint.
std::unique_ptr<UNet2D> make_network(const Config& config);

/// DataError, which begins with `what`, unless a config.json describes a network.
void check_network_config(const nlohmann::json& config, const std::string& what);

/// Why a network cannot be trained on images of this shape; empty if it can.
std::string network_misfit(const UNet2DConfig& network, const ImageShape& images,
                           const Config& config);

/// Why a network cannot be told log sigma, as EDM does; empty if it can.
std::string edm_misfit(const UNet2DConfig& network);

/// One factor per parameter: optimizer.class_embedding_learning_rate_scale for the class table.
std::vector<double> rate_scales(const Config& config, const std::vector<Parameter*>& parameters);

}  // namespace sfumato
