#pragma once
#include <cstdint>

namespace sfumato {

/// to[0, bytes) := host[0, bytes), a few KiB of tables (addresses, counts) for other kernels. The
/// bytes travel as kernel arguments, so that a recorded step keeps them by value and the host's
/// copy may go at once; a copy from host memory would be read again at every replay.
/// `to`: device memory, 16-byte aligned; `host`: host memory; bytes >= 0. Launches of at most
/// kUploadBytes each, in order, on `stream` (a cudaStream_t). Returns a cudaError_t.
inline constexpr std::int64_t kUploadBytes = 3840;
int launch_upload(void* to, const void* host, std::int64_t bytes, void* stream);

}  // namespace sfumato
