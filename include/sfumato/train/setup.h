#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "sfumato/config/config.h"
#include "sfumato/generate/generator.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/train/gradient_step.h"

namespace sfumato {

class RecordStore;

/// Where the configuration names no classes, takes the names of the record store, so that the run's
/// config.yaml keeps them. DataError as RecordStore::open.
void adopt_class_names(Config& config);

/// Where nobody said which size and channels the images have, takes those of the record store, so
/// that config.yaml and report say what is trained on. DataError as RecordStore::open.
void adopt_image_size(Config& config);

/// DataError unless the store's images, labels and class names fit generator and configuration,
/// whose data.image_size and data.channels count where somebody has set them. UsageError for a
/// store of held-out images; PrivacyError as check_holdout_adjacency. `misfit`: what
/// Generator::misfit says of the images.
void check_store_fits(const RecordStore& store, const std::string& misfit, const Config& config);

/// What is wrong with the batches that `plan` draws from `records` records, in a sentence; "" if
/// nothing is: fewer than 8 on average, or a divisor more than twice off the average. It tells how
/// many records there are: for the holder alone.
std::string batch_misfit(int64_t records, const MechanismPlan& plan);

/// Whether the store was prepared for another unit of privacy (users, records of each) than the
/// configuration says, in a sentence; "" if not. The unit of the run is the store's.
std::string unit_misfit(const RecordStore& store, const DataSettings& data);

/// Writes `warning` to private/warnings.txt of the run, or removes the file of an earlier session
/// where there is none, and shows it where run.private_warnings says so. Nothing of it may leave.
void tell_holder(const std::string& warning, const Config& config,
                 const std::filesystem::path& private_folder);

/// GradientStep::verify; and that a batch alone leaves no trace in what the generator keeps and
/// releases, as running statistics would: PrivacyError.
void verify_before_training(Generator& generator, GradientStep& gradients);

/// Choices of performance.* that a step needs; layers are measured once for each kind of GPU.
StepOptions step_options(const Config& config);
OptimizerOptions optimizer_options(const Config& config);

}  // namespace sfumato
