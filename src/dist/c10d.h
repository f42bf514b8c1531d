#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

// LibTorch's c10d behind interfaces without its headers, which take longest of all to read.

namespace sfumato {

/// Where the store of names is, and who serves it.
struct StorePlace {
  std::string host;
  std::uint16_t port = 0;
  std::string prefix;   ///< of all names
  bool served = false;  ///< serve it here, too
};

/// Names and values that all ranks see: a TCPStore. One connection, for one thread. All throw
/// exceptions of LibTorch: where the store cannot be reached, for good.
class NameStore {
 public:
  virtual ~NameStore() = default;
  /// The value under the name from now on: `value`, unless there already was one.
  virtual std::string claim(const std::string& name, const std::string& value) = 0;
  virtual void set(const std::string& name, const std::string& value) = 0;
  virtual bool has(const std::string& name) = 0;
  /// Waits, as long as the timeout of this connection, for those that are not there yet.
  virtual std::vector<std::string> get(const std::vector<std::string>& names) = 0;
  /// From now on.
  virtual void set_timeout(std::chrono::milliseconds timeout) = 0;
};

/// Tries for `timeout`.
std::unique_ptr<NameStore> open_name_store(const StorePlace& place,
                                           std::chrono::milliseconds timeout);

/// Connections between all ranks: Gloo's for tensors on the CPU, NCCL's, from the first time on,
/// for those on a GPU. Collective; calls return when the result is there and throw exceptions
/// of LibTorch and Gloo.
class RankLinks {
 public:
  virtual ~RankLinks() = default;
  virtual void all_reduce_sum(const std::vector<at::Tensor>& tensors) = 0;
  virtual void reduce_slices(const std::vector<at::Tensor>& flat) = 0;
  virtual void broadcast(const std::vector<at::Tensor>& tensors, int64_t from) = 0;
};

/// `address`: of this host, where the others reach it; `interface`, unless empty, names the network
/// interface instead. `store` must outlive the links.
std::unique_ptr<RankLinks> link_ranks(NameStore& store, int64_t rank, int64_t size,
                                      const std::string& address, const std::string& interface);

/// What() without the stack of calls that LibTorch appends.
std::string plain_reason(const std::exception& error);

}  // namespace sfumato
