#pragma once
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <string_view>

namespace sfumato {

/// One number of a metrics line.
struct Metric {
  std::string_view name;
  double value = 0;
};

/// Appends training metrics as JSON lines: {"step":12,"loss":0.25,...}. They come from private
/// data, so the file belongs in a run's private folder; it has mode 0600. Lines are handed to the
/// operating system one by one but not fsynced: metrics may be lost in a power cut, the ledger is
/// not. Steps only grow from line to line, also in a run that was resumed.
class MetricsLog {
 public:
  /// Opens or makes the file; what a crash left after the last whole line is cut off. DataError.
  explicit MetricsLog(const std::filesystem::path& path);
  /// For a session whose first step is `first_step`: what the file holds of this step and later
  /// ones, which a crash took back, moves to metrics_lost.jsonl beside it (`path` with "_lost" in
  /// its name). So do lines that an older one of the same step follows. Either file is replaced as
  /// a whole; a crash in between leaves a line in both, never in none.
  MetricsLog(const std::filesystem::path& path, std::int64_t first_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  /// Names in the given order, numbers in full precision; NaN and infinities are written as null,
  /// JSON having neither. DataError (disk full, ...) names the file.
  void append(std::int64_t step, std::span<const Metric> metrics);
  void append(std::int64_t step, std::initializer_list<Metric> metrics) {
    append(step, std::span<const Metric>(metrics.begin(), metrics.size()));
  }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace sfumato
