#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// A scheduler of diffusers, whatever solver it is, and what its file means where it is silent.
struct SchedulerClass {
  std::string_view name;
  double beta_start = 1e-4;
  double beta_end = 0.02;
  /// Of EDM preconditioning; others are of the noise sqrt(abar) x + sqrt(1 - abar) eps with abar
  /// from β.
  bool edm = false;
};
/// Null for a class that is not known.
const SchedulerClass* known_scheduler_class(std::string_view name);
std::vector<std::string> known_scheduler_classes();

/// All keys that the known classes take in diffusers 0.42, and those of earlier versions.
const std::vector<std::string>& known_scheduler_keys();

inline constexpr const char* kFlow = "flow matching, whose noise does not follow a schedule of β";
inline constexpr const char* kNoPlainSchedule =
    "none of the schedulers with a plain schedule of β, or of EDM, that this program knows";
/// Why a class that is known to be another kind cannot be used; "" for a name that is not known.
std::string other_scheduler_family(std::string_view name);

}  // namespace sfumato
