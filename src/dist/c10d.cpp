#include "dist/c10d.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <stdlib.h>  // setenv is not in <cstdlib>

#include <functional>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "dist/nccl_plugin/nccl_group.h"
#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"
#include "sfumato/dist/communicator.h"

namespace sfumato {
namespace {

using std::chrono::milliseconds;

/// Whoever waits for a rank that is lost is ended by the watch; a time of Gloo's own would only end
/// those that wait for a long stage.
constexpr milliseconds kGlooTimeout = std::chrono::hours(24 * 7);

class TcpStore final : public NameStore {
 public:
  TcpStore(const StorePlace& place, milliseconds timeout) {
    c10d::TCPStoreOptions options;
    options.port = place.port;
    options.isServer = place.served;
    options.waitWorkers = false;
    options.timeout = timeout;
    store_ = c10::make_intrusive<c10d::PrefixStore>(
        place.prefix, c10::make_intrusive<c10d::TCPStore>(place.host, options));
  }
  std::string claim(const std::string& name, const std::string& value) override {
    return base().compareSet(name, std::string(), value);
  }
  void set(const std::string& name, const std::string& value) override { base().set(name, value); }
  bool has(const std::string& name) override { return store_->check({name}); }
  std::vector<std::string> get(const std::vector<std::string>& names) override {
    std::vector<std::string> values;
    for (const std::vector<uint8_t>& value : store_->multiGet(names))
      values.emplace_back(value.begin(), value.end());
    return values;
  }
  void set_timeout(milliseconds timeout) override { store_->setTimeout(timeout); }
  const c10::intrusive_ptr<c10d::PrefixStore>& store() const { return store_; }

 private:
  c10d::Store& base() { return *store_; }
  c10::intrusive_ptr<c10d::PrefixStore> store_;
};

/// Its calls return when the GPU has the result. DeviceError where this build or machine has none.
c10::intrusive_ptr<c10d::Backend> nccl_group(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                             int size) {
  const auto entry = reinterpret_cast<NcclEntry>(find_in_gpu_library(kNcclEntry));
  if (entry == nullptr)
    throw DeviceError(
        "several processes on GPUs need NCCL, which this build was made without: its headers come "
        "with torch for CUDA (scripts/setup); or use the CPU (performance.device=cpu)");
  // By default NCCL's own watch over its calls kills the process, with another status than ours.
  ::setenv("TORCH_NCCL_BLOCKING_WAIT", "1", /*overwrite=*/1);
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", /*overwrite=*/1);
  ::setenv("TORCH_NCCL_ENABLE_MONITORING", "0", /*overwrite=*/1);
  c10::intrusive_ptr<c10d::Backend> group;
  entry(store, rank, size, &group);
  return group;
}

/// All of them, also where one throws: their tensors are the caller's.
void wait_for(const std::vector<c10::intrusive_ptr<c10d::Work>>& work) {
  std::exception_ptr failure;
  for (const auto& each : work) {
    try {
      each->wait();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

class Links final : public RankLinks {
 public:
  Links(TcpStore& store, int64_t rank, int64_t size, const std::string& address,
        const std::string& interface)
      : store_(store), rank_(static_cast<int>(rank)), size_(static_cast<int>(size)) {
    auto options = c10d::ProcessGroupGloo::Options::create(kGlooTimeout);
    options->devices.push_back(interface.empty()
                                   ? c10d::ProcessGroupGloo::createDeviceForHostname(address)
                                   : c10d::ProcessGroupGloo::createDeviceForInterface(interface));
    gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("gloo", store_.store()), rank_, size_, options);
  }
  void all_reduce_sum(const std::vector<at::Tensor>& tensors) override {
    run(tensors, [](c10d::Backend& group, std::size_t, std::vector<at::Tensor>& one) {
      return group.allreduce(one);
    });
  }
  // One reduction to each owner: Gloo's own of slices to all takes five times as long as its sums.
  void reduce_slices(const std::vector<at::Tensor>& flat) override {
    std::vector<at::Tensor> slices;
    for (const at::Tensor& tensor : flat)
      for (int64_t owner = 0; owner < size_; ++owner) {
        const Slice of_owner = slice_of(tensor.numel(), owner, size_);
        slices.push_back(tensor.slice(0, of_owner.begin, of_owner.end));
      }
    run(slices, [this](c10d::Backend& group, std::size_t place, std::vector<at::Tensor>& one) {
      c10d::ReduceOptions options;
      options.rootRank = static_cast<int64_t>(place) % size_;
      return group.reduce(one, options);
    });
  }
  void broadcast(const std::vector<at::Tensor>& tensors, int64_t from) override {
    std::vector<at::Tensor> bytes;  // of any type
    for (const at::Tensor& tensor : tensors)
      bytes.push_back(at::from_blob(tensor.data_ptr(), {static_cast<int64_t>(tensor.nbytes())},
                                    tensor.options().dtype(at::kByte).requires_grad(false)));
    run(bytes, [from](c10d::Backend& group, std::size_t, std::vector<at::Tensor>& one) {
      c10d::BroadcastOptions options;
      options.rootRank = from;
      return group.broadcast(one, options);
    });
  }

 private:
  /// Of the tensor at that place.
  using Start = std::function<c10::intrusive_ptr<c10d::Work>(c10d::Backend&, std::size_t place,
                                                             std::vector<at::Tensor>&)>;
  void run(const std::vector<at::Tensor>& tensors, const Start& start) {
    std::vector<c10::intrusive_ptr<c10d::Work>> work;
    try {
      for (std::size_t place = 0; place < tensors.size(); ++place) {
        if (tensors[place].numel() == 0) continue;
        std::vector<at::Tensor> one{tensors[place].detach()};
        work.push_back(start(group_for(tensors[place]), place, one));
      }
    } catch (...) {
      const std::exception_ptr failure = std::current_exception();
      try {
        wait_for(work);
      } catch (const std::exception&) {  // the first failure is the one to be told
      }
      std::rethrow_exception(failure);
    }
    wait_for(work);
  }
  c10d::Backend& group_for(const at::Tensor& tensor) {
    if (tensor.is_cpu()) return *gloo_;
    if (!nccl_)
      nccl_ =
          nccl_group(c10::make_intrusive<c10d::PrefixStore>("nccl", store_.store()), rank_, size_);
    return *nccl_;
  }

  TcpStore& store_;
  const int rank_, size_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
  c10::intrusive_ptr<c10d::Backend> nccl_;
};

}  // namespace

std::unique_ptr<NameStore> open_name_store(const StorePlace& place, milliseconds timeout) {
  // What c10d says of connections, a page each of addresses: we report it ourselves.
  ::setenv("TORCH_CPP_LOG_LEVEL", "FATAL", /*overwrite=*/0);
  c10::initLogging();
  return std::make_unique<TcpStore>(place, timeout);
}

std::unique_ptr<RankLinks> link_ranks(NameStore& store, int64_t rank, int64_t size,
                                      const std::string& address, const std::string& interface) {
  return std::make_unique<Links>(dynamic_cast<TcpStore&>(store), rank, size, address, interface);
}

std::string plain_reason(const std::exception& error) {
  const auto* const torch = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch != nullptr ? torch->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace sfumato
