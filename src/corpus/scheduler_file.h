#pragma once
#include <filesystem>

namespace sfumato {

struct Config;

/// Takes from a diffusers scheduler_config.json what a network was trained with (noise schedule,
/// prediction type) and how it is meant to be sampled (clipping, variance), for every setting that
/// still has its default. DataError, naming the file, for another family of schedulers and for
/// values that this program does not know.
void take_scheduler_file(const std::filesystem::path& path, Config& config);

}  // namespace sfumato
