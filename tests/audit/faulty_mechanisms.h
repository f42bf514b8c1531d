#pragma once
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "sfumato/audit/mechanism_under_test.h"
#include "sfumato/audit/probe_network.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/train/gradient_step.h"
#include "support/temp_folder.h"

namespace sfumato::test {

/// Production with one defect each. All keys are test keys, so that a test passes always or never.

struct NoiseOff : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<at::Tensor> release(int64_t step) override {
    (void)ProductionMechanism::release(step);  // charged
    std::vector<at::Tensor> sums = std::exchange(sums_, {});
    if (sums.empty())
      for (const Parameter* parameter : source().step->engine().trainable())
        sums.push_back(at::zeros(parameter->value.sizes()));
    return applied(PublicGradient(std::move(sums), plan().expected_batch_size));
  }
  void accumulate(const ProbeBatch& batch) override {
    ProductionMechanism::accumulate(batch);
    std::vector<at::Tensor> more = take_clipped_sum();
    for (size_t j = 0; j < more.size(); ++j)
      j < sums_.size() ? sums_[j].add_(more[j]) : sums_.emplace_back(more[j].clone());
    ProductionMechanism::accumulate(batch);
  }
  std::vector<at::Tensor> sums_;
};

/// The draws of an example are clipped each by itself.
struct DrawsClippedApart : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  void accumulate(const ProbeBatch& batch) override {
    ProbeBatch apart = batch;
    apart.examples = batch.examples * batch.draws;
    apart.draws = 1;
    const double draws = static_cast<double>(batch.draws);
    apart.losses = [batch, draws](Tape* tape) { return batch.draw_losses(tape).div(draws); };
    if (batch.mask.defined()) apart.mask = batch.mask.repeat_interleave(batch.draws);
    ProductionMechanism::accumulate(apart);
  }
};

/// Divides by the number of examples that came.
struct RealisedDivisor : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  void accumulate(const ProbeBatch& batch) override {
    examples_ += batch.examples;
    ProductionMechanism::accumulate(batch);
  }
  std::vector<at::Tensor> release(int64_t step) override {
    const double real = static_cast<double>(std::max<int64_t>(std::exchange(examples_, 0), 1));
    std::vector<at::Tensor> gradient = ProductionMechanism::release(step);
    for (at::Tensor& tensor : gradient) tensor = tensor.mul(plan().expected_batch_size / real);
    return gradient;
  }
  int64_t examples_ = 0;
};

/// A step without examples is left out.
struct EmptyBatchSkipped : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  void accumulate(const ProbeBatch& batch) override {
    empty_ = false;
    ProductionMechanism::accumulate(batch);
  }
  std::vector<at::Tensor> release(int64_t step) override {
    if (!std::exchange(empty_, true)) return ProductionMechanism::release(step);
    std::vector<at::Tensor> nothing;
    for (const Parameter* parameter : source().step->engine().trainable())
      nothing.push_back(at::zeros(parameter->value.sizes()));
    return nothing;
  }
  bool empty_ = true;
};

/// Clips by g min(1, C / |g|) whatever |g| is: NaN stays NaN, and C / infinity times infinity too.
struct NaNKept : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  void accumulate(const ProbeBatch& batch) override {
    ProductionMechanism::accumulate(batch);
    at::Tensor losses = batch.losses(nullptr).detach();
    poisoned_ |= !std::isfinite(losses.sum().item<double>());
  }
  std::vector<at::Tensor> take_clipped_sum() override {
    std::vector<at::Tensor> sum = ProductionMechanism::take_clipped_sum();
    if (std::exchange(poisoned_, false)) sum.front().fill_(std::nan(""));
    return sum;
  }
  bool poisoned_ = false;
};

/// Epochs of a shuffled data set, cut into batches of q n.
struct ShuffledEpochs : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<int64_t> sample(int64_t step, int64_t records) override {
    const auto size =
        static_cast<int64_t>(std::lround(plan().sample_rate * static_cast<double>(records)));
    const int64_t per_epoch = records / size;
    std::vector<int64_t> order(static_cast<size_t>(records));
    for (int64_t i = 0; i < records; ++i) order[static_cast<size_t>(i)] = i;
    std::mt19937_64 random(static_cast<uint64_t>(step / per_epoch));
    std::shuffle(order.begin(), order.end(), random);
    const auto first = order.begin() + (step % per_epoch) * size;
    std::vector<int64_t> batch(first, first + size);
    std::sort(batch.begin(), batch.end());
    return batch;
  }
};

/// Batches of the right size that are drawn without replacement: not Poisson either.
struct FixedSizeBatches : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<int64_t> sample(int64_t, int64_t records) override {
    std::vector<int64_t> all(static_cast<size_t>(records)), batch;
    for (int64_t i = 0; i < records; ++i) all[static_cast<size_t>(i)] = i;
    std::sample(all.begin(), all.end(), std::back_inserter(batch),
                std::lround(plan().sample_rate * static_cast<double>(records)), random_);
    return batch;
  }
  std::mt19937_64 random_{5};
};

/// The first `fresh` noises of a session come again and again.
struct NoiseReused : ProductionMechanism {
  NoiseReused(const MechanismPlan& plan, GradientSource source, uint64_t seed, int64_t fresh)
      : ProductionMechanism(plan, std::move(source), seed), fresh_(fresh) {}
  std::vector<at::Tensor> release(int64_t) override {
    ++charges_;
    // A ledger from scratch counts its releases from 1 again: equal nonces under an equal key.
    if (!ledger_ || uses_ == fresh_) {
      ledger_.reset();
      folder_.emplace();
      ledger_.emplace(Ledger::create(*folder_ / "ledger.jsonl", plan().to_json(), 1000, key_,
                                     /*witnessed=*/false));
      uses_ = 0;
    }
    ClippedSum sum = source().step->take_private();
    return applied(NoisyGradient::release(std::move(sum), plan().noise_multiplier,
                                          plan().expected_batch_size, key_,
                                          ledger_->charge(uses_++, key_)));
  }
  int64_t charges() const override { return charges_; }
  void resume() override {}

  int64_t fresh_, uses_ = 0, charges_ = 0;
  SecureKey key_ = SecureKey::insecure_for_tests(99);
  std::optional<TempFolder> folder_;
  std::optional<Ledger> ledger_;
};

/// A resumed session goes on with the key and the counters of the first.
struct StreamsReplayedOnResume : NoiseReused {
  StreamsReplayedOnResume(const MechanismPlan& plan, GradientSource source, uint64_t seed)
      : NoiseReused(plan, std::move(source), seed, 1'000'000) {}
  void resume() override {
    ledger_.reset();  // the next release starts a new one
  }
};

/// Noise is paid for after it is used, and only every second time.
struct EverySecondStepCharged : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  int64_t charges() const override { return ProductionMechanism::charges() / 2; }
};

}  // namespace sfumato::test
