#pragma once
#include <stdexcept>
#include <string>

namespace sfumato {

/// What went wrong, as the exit code a shell or a scheduler sees.
enum class ErrorKind : int {
  kUsage = 2,          ///< command line or configuration
  kData = 3,           ///< images, checkpoints, stores, files
  kPrivacy = 4,        ///< refused because the privacy claim would not hold
  kDevice = 5,         ///< memory, GPU, libraries, other processes of the run
  kInterrupted = 130,  ///< stopped at a step boundary, resumable
};

/// The one exception family. The message names the place and says what to change.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

struct UsageError : Error {
  explicit UsageError(const std::string& message) : Error(ErrorKind::kUsage, message) {}
};
struct DataError : Error {
  explicit DataError(const std::string& message) : Error(ErrorKind::kData, message) {}
};
struct PrivacyError : Error {
  explicit PrivacyError(const std::string& message) : Error(ErrorKind::kPrivacy, message) {}
};
struct DeviceError : Error {
  explicit DeviceError(const std::string& message) : Error(ErrorKind::kDevice, message) {}
};
/// Another process of the run died, hangs or cannot be reached: starting all of them again may
/// help.
struct LostRank : DeviceError {
  explicit LostRank(const std::string& message) : DeviceError(message) {}
};
struct Interrupted : Error {
  explicit Interrupted(const std::string& message) : Error(ErrorKind::kInterrupted, message) {}
};

}  // namespace sfumato
