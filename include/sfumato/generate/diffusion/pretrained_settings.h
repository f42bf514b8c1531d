#pragma once

namespace sfumato {

struct Config;

/// Completes a configuration by what the files of model.init say of the network that training
/// starts from (adopt_for_training): noise schedule, prediction, timesteps, size and channels of
/// the images, clipping. Does nothing without model.init; a second call changes nothing. To be
/// called before anything is made from the configuration, the mechanism's plan included.
///
/// DataError: a network that is no pixel diffusion network (require_pixel_diffusion), files that
/// cannot be read or used. UsageError: settings that contradict the files; with `resume`, an
/// adopted value of diffusion.* that run.dir was not started with, because the files have changed
/// since or an earlier version did not look at them.
void adopt_diffusion_settings(Config& config, bool resume = false);

/// The same for the images alone, where they are prepared before there may be a model.init: a
/// folder that is not there is passed over.
void adopt_diffusion_image_settings(Config& config);

}  // namespace sfumato
