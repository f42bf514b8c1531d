#include "sfumato/report/metrics_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "private_file.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"

namespace sfumato {
namespace {

/// Length of the file up to and with its last newline.
off_t whole_lines(int fd) {
  off_t end = ::lseek(fd, 0, SEEK_END);
  char buffer[4096];
  while (end > 0) {
    const off_t begin = std::max<off_t>(0, end - static_cast<off_t>(sizeof buffer));
    const ssize_t n = ::pread(fd, buffer, static_cast<std::size_t>(end - begin), begin);
    if (n <= 0) break;
    const std::string_view piece(buffer, static_cast<std::size_t>(n));
    if (const std::size_t newline = piece.rfind('\n'); newline != std::string_view::npos)
      return begin + static_cast<off_t>(newline) + 1;
    end = begin;
  }
  return 0;
}

/// The step of a line; none if it is no line of metrics.
std::optional<std::int64_t> step_of(std::string_view line) {
  constexpr std::string_view kStart = "{\"step\":";
  std::int64_t step = 0;
  if (!line.starts_with(kStart)) return std::nullopt;
  const char* end = line.data() + line.size();
  const auto [after, error] = std::from_chars(line.data() + kStart.size(), end, step);
  if (error != std::errc() || after == end || (*after != ',' && *after != '}')) return std::nullopt;
  return step;
}

void move_lost_lines(const std::filesystem::path& path, std::int64_t first_step) {
  if (!std::filesystem::exists(path)) return;
  const std::string text = read_file(path);
  std::vector<std::string_view> lines;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = text.find('\n', start);
    if (end == text.npos) break;  // torn: cut off when the file is opened
    lines.push_back(std::string_view(text).substr(start, end + 1 - start));
    start = end + 1;
  }
  // From the end: of the lines of one step the last one counts.
  std::vector<bool> is_kept(lines.size());
  std::int64_t limit = first_step;
  for (std::size_t i = lines.size(); i-- > 0;) {
    const std::optional<std::int64_t> step = step_of(lines[i]);
    is_kept[i] = step && *step < limit;
    if (is_kept[i]) limit = *step;
  }
  std::string kept, lost;
  for (std::size_t i = 0; i < lines.size(); ++i) (is_kept[i] ? kept : lost) += lines[i];
  if (lost.empty()) return;
  const std::filesystem::path lost_path =
      path.parent_path() / (path.stem().string() + "_lost" + path.extension().string());
  const std::string before =
      std::filesystem::exists(lost_path) ? read_file(lost_path) : std::string();
  // A session that ended between the two files moved the same lines.
  if (!before.ends_with(lost)) write_file_atomic(lost_path, before + lost, 0600);
  write_file_atomic(path, kept, 0600);
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::int64_t first_step)
    : MetricsLog((move_lost_lines(path, first_step), path)) {}

MetricsLog::MetricsLog(const std::filesystem::path& path) : path_(path) {
  fd_ = private_file::open(path, O_RDWR);
  if (::ftruncate(fd_, whole_lines(fd_)) != 0) {
    const int error = errno;
    ::close(fd_);
    throw DataError(fmt::format("cannot write '{}': {}", path.string(), std::strerror(error)));
  }
}

MetricsLog::~MetricsLog() { ::close(fd_); }

void MetricsLog::append(std::int64_t step, std::span<const Metric> metrics) {
  std::string line = fmt::format("{{\"step\":{}", step);
  for (const Metric& metric : metrics) {
    line += fmt::format(",{}:", nlohmann::json(metric.name).dump());
    line += std::isfinite(metric.value) ? fmt::format("{}", metric.value) : "null";
  }
  line += "}\n";
  private_file::append(fd_, line, path_);
}

}  // namespace sfumato
