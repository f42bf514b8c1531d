#pragma once
#include <memory>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/models/unet2d.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/optimizer.h"

namespace sfumato {

class RecordStore;

/// Rows of the class table that a configuration needs: the classes, and one more for "no label"
/// where labels are dropped; 0 for unconditional training.
int64_t class_rows(const Config& config);

/// The network of a configuration: loaded from model.init or made from model.config and
/// initialised by run.seed; parameters that match no pattern of model.trainable are frozen.
/// UsageError for a pattern without a match, DataError for a bad checkpoint.
std::unique_ptr<UNet2D> make_network(const Config& config);

/// Where the configuration names no classes, takes the names of the record store, so that the run's
/// config.yaml keeps them. DataError as RecordStore::open.
void adopt_class_names(Config& config);

/// DataError unless the store's images, labels and class names fit network and configuration.
void check_store_fits(const RecordStore& store, const UNet2DConfig& network, const Config& config);

ClipOptions clip_options(const Config& config);
/// Choices of performance.* that a step needs; layers are measured once for each kind of GPU.
StepOptions step_options(const Config& config);
OptimizerOptions optimizer_options(const Config& config);
/// One factor per parameter: optimizer.class_embedding_learning_rate_scale for the class table.
std::vector<double> rate_scales(const Config& config, const std::vector<Parameter*>& parameters);

}  // namespace sfumato
