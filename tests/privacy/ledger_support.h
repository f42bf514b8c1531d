#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/privacy/ledger.h"
#include "src/privacy/ledger_line.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato::test {

inline nlohmann::ordered_json small_plan() {
  return {{"sample_rate", 0.01}, {"noise_multiplier", 1.1}, {"steps", 100}, {"unit", "one image"}};
}

inline std::vector<std::string> lines_of(const std::filesystem::path& path) {
  std::vector<std::string> lines;
  std::string bytes = read_file(path);
  for (std::size_t at; (at = bytes.find('\n')) != std::string::npos; bytes.erase(0, at + 1))
    lines.push_back(bytes.substr(0, at));
  EXPECT_EQ(bytes, "") << "the file does not end in a newline";
  return lines;
}

inline void write_lines(const std::filesystem::path& path, const std::vector<std::string>& lines) {
  std::string bytes;
  for (const std::string& line : lines) bytes += line + "\n";
  write_file_atomic(path, bytes);
}

/// A chain that is sound line by line, of whatever content.
inline std::vector<std::string> chained(const std::vector<nlohmann::ordered_json>& contents) {
  std::vector<std::string> lines;
  std::string previous(kNoPrevious);
  for (const nlohmann::ordered_json& content : contents) {
    nlohmann::ordered_json line = {{"line", lines.size() + 1}};
    line.update(content);
    line["previous"] = previous;
    lines.push_back(seal_line(line));
    previous = sha256_hex(lines.back());
  }
  return lines;
}

/// Two sessions with charges, a checkpoint and a stop: 9 lines.
inline void write_sample_ledger(const std::filesystem::path& path) {
  {
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(path, small_plan(), 100, key);
    for (const std::int64_t step : {0, 1, 2}) (void)ledger.charge(step, key);
    ledger.record_event("checkpoint", {{"step", 2}, {"checkpoint", "step_000002"}});
    ledger.record_event("stop", {{"reason", "signal"}});
  }
  const SecureKey key = SecureKey::generate();
  Ledger ledger = Ledger::open(path);
  ledger.resume(key);
  for (const std::int64_t step : {2, 3}) (void)ledger.charge(step, key);
}

}  // namespace sfumato::test
