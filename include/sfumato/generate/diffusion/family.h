#pragma once
#include "sfumato/generate/families.h"

namespace sfumato {

/// The row of diffusion in the table of families.
Family diffusion_family();

}  // namespace sfumato
