#include "generate/gan/readme.h"

#include <fmt/format.h>

#include "sfumato/config/config.h"
#include "sfumato/core/version.h"

namespace sfumato {

std::string gan_readme(const Config& config) {
  const char* discriminator =
      config.gan.release_discriminator()
          ? "`discriminator/` is the network that the generator learned from, as a later training "
            "may start with it\n(`model.init`); the card speaks of its weights as well."
          : "The discriminator that it learned from is not released.";
  return fmt::format(
      "# Image generator\n\n"
      "Trained by sfumato {}. What its training may have revealed: `privacy_card.md`. `generator/` "
      "holds the averaged\nweights of a network that draws an image in one pass from a vector of "
      "normal numbers{}.\n{}\n\n"
      "## Drawing images\n\n"
      "`sfumato sample FOLDER --out corpus --count N` writes a corpus with its card. `python "
      "sample.py` draws the same\nimages with PyTorch alone, to one grey level; `python sample.py "
      "--help` says how.\n",
      version(), config.data.num_classes() > 0 ? " and a class" : "", discriminator);
}

}  // namespace sfumato
