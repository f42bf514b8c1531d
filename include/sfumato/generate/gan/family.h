#pragma once
#include "sfumato/generate/families.h"

namespace sfumato {

/// The row of generative adversarial networks in the table of families. Their folders hold
/// generator/ and, where it is there, discriminator/, each with config.json and weights.
Family gan_family();

}  // namespace sfumato
