#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace sfumato {

/// Finds the fastest of several ways to do the same work on a GPU by running each, and remembers
/// the answer by the shape of the work and the kind of GPU: in a file, so that the next process
/// of the same build need not measure again. What it times is made-up data: its answer depends on
/// shapes and machine alone, never on private images, and changes no result beyond rounding.
class Tuner {
 public:
  /// `memory`: a JSON file that may not exist yet, in a folder that may not exist; empty: none. A
  /// file that cannot be read or written is reported once as a warning and does without.
  explicit Tuner(std::filesystem::path memory);
  ~Tuner();
  Tuner(const Tuner&) = delete;
  Tuner& operator=(const Tuner&) = delete;

  struct Candidate {
    std::string name;  ///< "keep by kernel"
    std::function<void()> run;
  };
  struct Result {
    size_t fastest = 0;           ///< index into the candidates
    std::vector<double> seconds;  ///< of each, the best of a few runs; infinite where memory ran
                                  ///< out or the GPU does not have this way; empty where nothing
                                  ///< was measured
  };
  /// `shape` names the work. One candidate, and machines without a GPU: the first, unmeasured.
  /// A way that throws DeviceError or c10::Error is left out with a warning. Where none is left:
  /// c10::OutOfMemoryError if one of them lacked memory alone, else DeviceError.
  Result fastest(const std::string& shape, const std::vector<Candidate>& candidates);

  /// $SFUMATO_CACHE_DIR, else $XDG_CACHE_HOME/sfumato, else ~/.cache/sfumato, and the file in it
  /// for the current GPU; empty where there is no home.
  static std::filesystem::path default_memory();

 private:
  void load();
  void save();

  std::filesystem::path memory_;
  std::map<std::string, std::map<std::string, double>> known_;  ///< shape -> candidate -> seconds
  bool loaded_ = false, warned_ = false;
};

}  // namespace sfumato
