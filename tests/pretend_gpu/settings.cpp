#include "pretend_gpu/settings.h"

#include <cstdio>
#include <cstdlib>
#include <optional>

namespace pretend_gpu {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

[[noreturn]] void refuse(const char* name, const std::string& value, const char* wanted) {
  std::fprintf(stderr, "pretend_gpu: %s is '%s', not %s\n", name, value.c_str(), wanted);
  std::_Exit(2);
}

std::optional<size_t> bytes_of(const char* name) {
  const std::string text = variable(name);
  if (text.empty()) return {};
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  if (*end != '\0' || value == 0) refuse(name, text, "a number of bytes");
  return value;
}

void read_capability(Settings& s) {
  constexpr const char* kName = "PRETEND_GPU_CAPABILITY";
  const std::string text = variable(kName);
  char rest = '\0';
  if (text.empty()) {
    s.major = 9;
  } else if (std::sscanf(text.c_str(), "%d.%d%c", &s.major, &s.minor, &rest) != 2 || s.major < 8) {
    refuse(kName, text, "a compute capability of 8.0 or later, for example 8.9");
  }
}

/// The programming guide's table of technical specifications per compute capability.
void derive(Settings& s) {
  const bool data_centre = s.minor == 0 && s.major <= 10;
  const int capability = 10 * s.major + s.minor;
  s.name = capability == 90 ? "NVIDIA H200 (pretended)"
                            : "NVIDIA GPU of compute capability " + std::to_string(s.major) + "." +
                                  std::to_string(s.minor) + " (pretended)";
  s.multiprocessors = data_centre ? 132 : 128;
  s.threads_per_multiprocessor = data_centre ? 2048 : 1536;
  s.blocks_per_multiprocessor = data_centre ? 32 : capability == 86 ? 16 : 24;
  size_t shared = 227 << 10;
  if (!data_centre)
    shared = 99 << 10;
  else if (capability == 80)
    shared = 163 << 10;
  s.shared_bytes_per_block = bytes_of("PRETEND_GPU_SHARED_BYTES").value_or(shared);
  if (s.shared_bytes_per_block < kSharedBytesWithoutAsking)
    refuse("PRETEND_GPU_SHARED_BYTES", std::to_string(s.shared_bytes_per_block),
           "at least the 49152 bytes that every GPU has");
  s.shared_bytes_per_multiprocessor = s.shared_bytes_per_block + kReservedSharedBytes;
}

Settings read() {
  Settings s;
  s.memory_bytes = bytes_of("PRETEND_GPU_BYTES").value_or(size_t{141} << 30);
  read_capability(s);
  derive(s);
  s.log = variable("PRETEND_GPU_LOG");
  s.truths = variable("PRETEND_GPU_TRUTHS") == "1";
  s.break_captures = variable("PRETEND_GPU_BREAK_CAPTURES") == "1";
  s.break_graphs = variable("PRETEND_GPU_BREAK_GRAPHS") == "1";
  s.verbose = !variable("PRETEND_GPU_VERBOSE").empty();
  return s;
}

}  // namespace

const Settings& settings() {
  static const Settings* const once = new Settings(read());
  return *once;
}

}  // namespace pretend_gpu
