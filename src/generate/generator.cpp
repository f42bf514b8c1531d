#include "sfumato/generate/generator.h"

#include "sfumato/core/error.h"
#include "sfumato/generate/membership_scores.h"

namespace sfumato {

void Generator::move_to(const Placement& placement) {
  if (!placement.device.is_cpu() || placement.compute_type != c10::ScalarType::Float ||
      placement.product_type != c10::ScalarType::Float)
    throw UsageError(
        "generators of this family draw on the CPU in float32 only; set performance.device=cpu and "
        "performance.precision=fp32");
}

std::string Generator::attack_obstacle() const {
  return "no membership attack is known on generators of this family";
}

std::unique_ptr<MembershipScorer> Generator::membership_scorer(const Config&,
                                                               const MembershipOptions&) {
  return nullptr;
}

}  // namespace sfumato
