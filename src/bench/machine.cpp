#include "sfumato/bench/machine.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <sched.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "kernels/chacha_gaussian.h"
#include "kernels/cpu_bf16.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/grad/memory_meter.h"
#include "sfumato/io/image_codec.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {
namespace {

/// The value of the first "key : value" line of /proc/cpuinfo; empty if there is none.
std::string cpuinfo(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return {};
}

std::vector<std::string> simd_flags() {
  static constexpr const char* kInteresting[] = {"sse4_2",   "avx",      "avx2",     "fma",
                                                 "avx512f",  "avx512bw", "avx512vl", "avx512_bf16",
                                                 "amx_tile", "amx_bf16"};
  std::istringstream flags(cpuinfo("flags"));
  std::vector<std::string> found;
  for (std::string flag; flags >> flag;)
    for (const char* wanted : kInteresting)
      if (flag == wanted) found.push_back(flag);
  return found;
}

int64_t usable_cores() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return std::thread::hardware_concurrency();
}

std::string noise_kernels() {
  switch (best_chacha_simd()) {
    case ChaChaSimd::kPortable: return "portable";
    case ChaChaSimd::kAvx2: return "avx2";
    case ChaChaSimd::kAvx512: return "avx512";
  }
  return "unknown";
}

std::string check_random() {
  const SecureKey first = SecureKey::generate(), second = SecureKey::generate();
  if (first.id() == second.id())
    throw DeviceError("getrandom returned the same key twice; do not train on this machine");
  return "keys come from getrandom(2)";
}

std::string check_codec() {
  Image image;
  image.height = image.width = 4;
  image.channels = 3;
  for (uint8_t i = 0; i < 48; ++i) image.pixels.push_back(static_cast<uint8_t>(5 * i));
  if (decode_image(encode_png(image), "a test picture").pixels != image.pixels)
    throw DeviceError(
        "OpenCV changes a picture on its way through PNG; install "
        "libopencv-imgcodecs-dev again");
  return "OpenCV writes and reads PNG";
}

void describe_gpu(Machine& machine) {
  try {
    const GpuBackend* gpu = find_gpu_backend();
    if (gpu == nullptr) {
      machine.why_no_gpu = why_no_gpu();
      return;
    }
    machine.gpu = gpu->facts(gpu->current_device());
    machine.gpu_free_bytes = gpu->memory().free;
  } catch (const std::exception& error) {
    machine.gpu.reset();
    machine.why_no_gpu = error.what();
  }
}

/// Writes where `folder` would be made: in its nearest ancestor that exists.
std::string check_writing(const std::filesystem::path& folder) {
  std::filesystem::path place = std::filesystem::absolute(folder).lexically_normal();
  while (!std::filesystem::exists(place) && place.has_relative_path()) place = place.parent_path();
  if (!std::filesystem::is_directory(place))
    throw DataError(fmt::format("'{}' is no folder; choose another run.dir", place.string()));
  const std::filesystem::path file = place / fmt::format(".sfumato-doctor-{}", ::getpid());
  write_file_atomic(file, std::string(1 << 16, 'x'));
  std::filesystem::remove(file);
  return fmt::format("'{}' can be written", place.string());
}

}  // namespace

Machine describe_machine() {
  Machine machine;
  const auto known = [](std::string text) { return text.empty() ? "unknown" : text; };
  machine.cpu_model = known(cpuinfo("model name"));
  machine.cores = usable_cores();
  machine.simd = simd_flags();
  machine.tensor_kernels = known(at::get_cpu_capability());
  machine.noise_kernels = noise_kernels();
  machine.cpu_bf16 = cpu_has_bf16_tiles() ? "AVX512-BF16 and AMX"
                     : cpu_has_bf16()     ? "AVX512-BF16"
                                          : "none";
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) machine.memory_bytes = int64_t{pages} * page;
  machine.memory_available_bytes = available_memory_bytes();
  machine.torch_version = TORCH_VERSION;
  machine.torch_threads = at::get_num_threads();
  describe_gpu(machine);
  return machine;
}

std::vector<Check> run_checks(const std::string& run_folder) {
  std::vector<Check> checks;
  const auto check = [&](const char* name, const std::function<std::string()>& work) {
    try {
      checks.push_back({name, true, work()});
    } catch (const std::exception& error) {
      checks.push_back({name, false, error.what()});
    }
  };
  check("secure randomness", check_random);
  check("image codec", check_codec);
  check("run folder", [&] { return check_writing(run_folder); });
  return checks;
}

}  // namespace sfumato
