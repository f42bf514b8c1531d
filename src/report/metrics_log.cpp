#include "sfumato/report/metrics_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "private_file.h"
#include "sfumato/core/error.h"

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

}  // namespace

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
