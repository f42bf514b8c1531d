#include "sfumato/grad/isolation.h"

#include <cmath>

#include "nn/recorded_op.h"
#include "sfumato/core/error.h"

namespace sfumato {

void verify_isolation(GradientEngine& engine, int64_t draws,
                      const std::function<at::Tensor(Tape&, int variant)>& loss) {
  double losses[2], norms[2];
  bool past_the_tape = false;
  for (const int variant : {0, 1}) {
    at::Tensor seen;
    const BatchStatistics statistics =
        engine.accumulate(2, draws, {}, [&](Tape& tape) { return seen = loss(tape, variant); });
    past_the_tape = past_the_tape || reaches_a_leaf(seen);
    losses[variant] = double{statistics.loss[0].item<float>()};
    norms[variant] = statistics.norm[0].item<double>();
  }
  engine.discard();
  if (past_the_tape)
    throw PrivacyError(
        "the loss reaches parameters past the tape, as of another network or of a layer that is "
        "called without it: their gradients would be neither clipped nor noised; compute what does "
        "not train without gradients");
  if (!std::isfinite(losses[0] + losses[1] + norms[0] + norms[1]))
    throw PrivacyError(
        "the loss or gradient of synthetic images is not finite, so that nothing can be said about "
        "the network; check its weights (model.init) and the scale of its configuration");
  const auto differ = [](double a, double b) {
    return std::abs(a - b) > 1e-3 * std::max(std::abs(a), std::abs(b)) + 1e-9;
  };
  if (differ(losses[0], losses[1]) || differ(norms[0], norms[1]))
    throw PrivacyError(
        "the network mixes examples: one example's gradient changes with another's image, so "
        "clipping bounds nothing; remove batch normalisation and minibatch statistics");
}

}  // namespace sfumato
