#pragma once
#include <string>
#include <vector>

#include "sfumato/nn/module.h"

namespace sfumato {

/// "default": every layer's own start; "orthogonal": weights orthogonal by rows or columns (Saxe et
/// al. 2014, as BigGAN's); "normal": weights N(0, 0.02^2) (Radford et al. 2016).
const std::vector<std::string>& start_names();

/// The last child of a network: it draws the weights of convolutions and linear layers of `network`
/// once more, after these layers themselves. Biases, norms and class tables stay.
class GanStart : public Module {
 public:
  GanStart(Module& network, std::string name) : network_(network), name_(std::move(name)) {}
  const std::string& name() const { return name_; }

 private:
  void initialise_own(at::Generator& generator) override;
  Module& network_;
  std::string name_;
};

}  // namespace sfumato
