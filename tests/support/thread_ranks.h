#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/dist/communicator.h"

namespace sfumato::test {

/// Ranks that are threads of this process, which meet at every collective call. Where one ends by
/// an exception, the others get a LostRank at their next call. Every byte that rank 0 broadcasts is
/// kept.
class ThreadRanks {
 public:
  explicit ThreadRanks(int64_t size) : size_(size), given_(static_cast<std::size_t>(size)) {}

  /// Runs `work` on every rank; what each of them threw, null where it threw nothing.
  std::vector<std::exception_ptr> run(
      const std::function<void(const std::shared_ptr<Communicator>&)>& work) {
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(size_));
    std::vector<std::thread> threads;
    for (int64_t rank = 0; rank < size_; ++rank)
      threads.emplace_back([this, rank, &work, &errors] {
        try {
          work(std::make_shared<Member>(*this, rank));
        } catch (...) {
          errors[static_cast<std::size_t>(rank)] = std::current_exception();
          lose();
        }
      });
    for (std::thread& thread : threads) thread.join();
    return errors;
  }
  /// The same, where none should throw: throws the first error.
  void run_well(const std::function<void(const std::shared_ptr<Communicator>&)>& work) {
    std::exception_ptr lost;
    for (const std::exception_ptr& error : run(work)) {
      if (!error) continue;
      try {
        std::rethrow_exception(error);
      } catch (const LostRank&) {  // of one that waited for the one that failed
        lost = error;
      }
    }
    if (lost) std::rethrow_exception(lost);
  }

  /// All bytes that rank 0 has broadcast, of tensors too.
  const std::vector<std::byte>& broadcasts() const { return broadcasts_; }
  /// Sums over ranks so far, by tensors: of what each rank gave, rank after rank.
  int64_t reductions() const { return reductions_; }

 private:
  class Member final : public Communicator {
   public:
    Member(ThreadRanks& all, int64_t rank) : all_(all), rank_(rank) {}
    int64_t rank() const override { return rank_; }
    int64_t size() const override { return all_.size_; }
    int64_t local_rank() const override { return rank_; }
    int64_t local_size() const override { return all_.size_; }

    void all_reduce_sum(const std::vector<at::Tensor>& tensors) override {
      all_.meet(rank_, tensors, [&] {
        ++all_.reductions_;
        for (std::size_t j = 0; j < tensors.size(); ++j) {
          at::Tensor sum = all_.given_[0][j];
          for (std::size_t r = 1; r < all_.given_.size(); ++r) {
            if (all_.given_[r].size() != tensors.size() ||
                all_.given_[r][j].sizes() != sum.sizes() ||
                all_.given_[r][j].scalar_type() != sum.scalar_type())
              throw DeviceError("ranks give unlike tensors");
            sum.add_(all_.given_[r][j]);
          }
          for (std::size_t r = 1; r < all_.given_.size(); ++r) all_.given_[r][j].copy_(sum);
        }
      });
    }
    /// Outside of the slices is rubbish afterwards.
    void reduce_slices(const std::vector<at::Tensor>& flat) override {
      all_reduce_sum(flat);
      for (const at::Tensor& tensor : flat) {
        const Slice own = slice_of(tensor.numel(), rank_, all_.size_);
        tensor.slice(0, 0, own.begin).fill_(77);
        tensor.slice(0, own.end).fill_(77);
      }
    }
    void broadcast(const std::vector<at::Tensor>& tensors, int64_t from) override {
      all_.meet(rank_, tensors, [&] {
        for (std::size_t j = 0; j < tensors.size(); ++j) {
          const at::Tensor& source = all_.given_[static_cast<std::size_t>(from)][j];
          if (from == 0)
            all_.keep({static_cast<const std::byte*>(source.const_data_ptr()), source.nbytes()});
          for (const std::vector<at::Tensor>& given : all_.given_)
            if (!given[j].is_same(source)) given[j].copy_(source);
        }
      });
    }
    void broadcast(std::span<std::byte> bytes) override {
      {
        const std::lock_guard lock(all_.mutex_);
        if (rank_ == 0) all_.bytes_ = bytes;
      }
      all_.meet(rank_, {}, [&] { all_.keep(all_.bytes_); });
      if (rank_ != 0) {
        if (bytes.size() != all_.bytes_.size()) throw DeviceError("ranks give unlike bytes");
        std::copy(all_.bytes_.begin(), all_.bytes_.end(), bytes.begin());
      }
      barrier();
    }
    void barrier() override {
      all_.meet(rank_, {}, [] {});
    }

   private:
    ThreadRanks& all_;
    int64_t rank_;
  };

  /// Returns on every rank once all came and one of them did the work.
  void meet(int64_t rank, const std::vector<at::Tensor>& tensors,
            const std::function<void()>& work) {
    std::unique_lock lock(mutex_);
    if (lost_) throw LostRank("another rank has ended");
    given_[static_cast<std::size_t>(rank)] = tensors;
    const int64_t meeting = meeting_;
    if (++here_ == size_) {
      here_ = 0;
      try {
        work();
      } catch (...) {
        lost_ = true;
        ++meeting_;
        all_here_.notify_all();
        throw;
      }
      ++meeting_;
      all_here_.notify_all();
      return;
    }
    all_here_.wait(lock, [&] { return meeting_ != meeting || lost_; });
    if (meeting_ == meeting) throw LostRank("another rank has ended");
  }
  void keep(std::span<const std::byte> bytes) {
    broadcasts_.insert(broadcasts_.end(), bytes.begin(), bytes.end());
  }
  void lose() {
    const std::lock_guard lock(mutex_);
    lost_ = true;
    all_here_.notify_all();
  }

  int64_t size_;
  std::mutex mutex_;
  std::condition_variable all_here_;
  int64_t here_ = 0, meeting_ = 0, reductions_ = 0;
  bool lost_ = false;
  std::vector<std::vector<at::Tensor>> given_;
  std::span<std::byte> bytes_;
  std::vector<std::byte> broadcasts_;
};

}  // namespace sfumato::test
