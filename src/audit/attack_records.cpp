// Which records an attack looks at, their scores, and what the scores give away.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "sfumato/audit/membership.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/batch.h"
#include "sfumato/data/record_store.h"
#include "sfumato/dist/together.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

std::string_view bytes_of(const RecordStore& store, int64_t record) {
  const auto pixels = store.pixels(record);
  return {reinterpret_cast<const char*>(pixels.data()), pixels.size()};
}

/// float32 [n, C, H, W] in [-1, 1].
at::Tensor load_images(const RecordStore& store, std::span<const int64_t> records) {
  const at::Tensor images =
      at::empty({std::ssize(records), store.height(), store.width(), store.channels()}, at::kFloat);
  gather(store, records, images.mutable_data_ptr<float>());
  return images.permute({0, 3, 1, 2}).contiguous();
}

at::Tensor load_labels(const RecordStore& store, std::span<const int64_t> records) {
  const at::Tensor labels = at::empty({std::ssize(records)}, at::kLong);
  int64_t* out = labels.mutable_data_ptr<int64_t>();
  for (const int64_t record : records) *out++ = store.label(record);
  return labels;
}

AttackResult evaluate(const std::vector<ScoreColumn>& columns, std::vector<int64_t> candidates,
                      const ScoredRecords& members, const ScoredRecords& others) {
  int64_t best = candidates.front();
  double best_area = -1;
  for (const int64_t column : candidates) {
    const double area = auroc(members.half(column, true), others.half(column, true)).value;
    if (area > best_area) best = column, best_area = area;
  }
  const auto chosen_on = others.half(best, true);
  const auto members_left = members.half(best, false), others_left = others.half(best, false);
  AttackResult result{.column = columns[static_cast<std::size_t>(best)],
                      .selection_auroc = best_area,
                      .auroc = auroc(members_left, others_left),
                      .points = {},
                      .roc = roc_curve(members_left, others_left)};
  for (const double rate : kFalsePositiveRates)
    result.points.push_back(
        operating_point(rate, threshold_at(chosen_on, rate), members_left, others_left));
  return result;
}

/// What ranks must have in common to score together.
std::string description(const std::vector<int64_t>& records, const MembershipScorer& scorer,
                        int64_t batch) {
  std::string text = fmt::format("batches of {}; records {};", batch, fmt::join(records, ","));
  for (const ScoreColumn& column : scorer.columns()) text += " " + column.name();
  return text;
}

}  // namespace

std::vector<int64_t> choose_records(int64_t available, int64_t count, uint64_t seed,
                                    const std::string& purpose) {
  if (count < 0) throw UsageError("--count takes a number of records, 0 for all of them");
  const auto blocks = static_cast<std::size_t>((available + 7) / 8);
  std::vector<uint32_t> words(blocks * 16);
  SeededStreams("sfumato audit records " + purpose, seed)
      .words(words.data(), 0, static_cast<int64_t>(blocks), 0, 0);
  std::vector<std::pair<uint64_t, int64_t>> order;
  order.reserve(static_cast<std::size_t>(available));
  for (int64_t i = 0; i < available; ++i) {
    const auto at = static_cast<std::size_t>(2 * i);
    order.emplace_back(static_cast<uint64_t>(words[at]) << 32 | words[at + 1], i);
  }
  std::sort(order.begin(), order.end());
  if (count > 0 && count < available) order.resize(static_cast<std::size_t>(count));
  std::vector<int64_t> chosen;
  chosen.reserve(order.size());
  for (const auto& [key, record] : order) chosen.push_back(record);
  return chosen;
}

std::vector<double> ScoredRecords::half(int64_t column, bool selection) const {
  std::vector<double> values;
  const at::Tensor one = scores.select(1, column).contiguous();
  const double* value = one.const_data_ptr<double>();
  for (int64_t place = selection ? 0 : 1; place < one.size(0); place += 2)
    values.push_back(value[place]);
  return values;
}

ScoredRecords score_records(const RecordStore& store, std::vector<int64_t> records,
                            const MembershipScorer& scorer, bool with_labels, int64_t batch,
                            const std::function<void(int64_t done)>& progress,
                            Communicator* given_ranks) {
  if (batch < 1) throw UsageError("--batch takes a number of images, 1 or more");
  const int64_t total = std::ssize(records), width = std::ssize(scorer.columns());
  // Zeros for the scores of other ranks.
  ScoredRecords scored{.records = std::move(records),
                       .scores = at::zeros({total, width}, at::kDouble)};
  const std::shared_ptr<Communicator> alone = single_process();
  Communicator& ranks = given_ranks != nullptr ? *given_ranks : *alone;
  ranks.require_same("what is scored", description(scored.records, scorer, batch),
                     "give all processes the same stores and options");
  const Slice own = slice_of((total + batch - 1) / batch, ranks.rank(), ranks.size());
  for (int64_t done = 0, round = 0; done < total; ++round) {
    or_part(ranks, [&] {
      everywhere(ranks, [&] {
        if (stop_requested())
          throw Interrupted("stopped; an audit starts anew when it is called again");
        if (round >= own.size()) return;
        const int64_t begin = (own.begin + round) * batch, size = std::min(batch, total - begin);
        const std::span<const int64_t> part(scored.records.data() + begin,
                                            static_cast<std::size_t>(size));
        scored.scores.narrow(0, begin, size)
            .copy_(scorer.score(load_images(store, part),
                                with_labels ? load_labels(store, part) : at::Tensor()));
      });
    });
    done = std::min(total, (round + 1) * batch * ranks.size());
    if (progress) progress(done);
  }
  // As integers: the sum with zeros has the bits that were filled in.
  ranks.all_reduce_sum({scored.scores.view(at::kLong)});
  return scored;
}

std::vector<int64_t> records_in_both(const RecordStore& members, const RecordStore& others,
                                     const std::vector<int64_t>& other_records) {
  std::unordered_multimap<std::string_view, int64_t> wanted;
  for (const int64_t record : other_records) wanted.emplace(bytes_of(others, record), record);
  std::vector<int64_t> both;
  for (int64_t i = 0; i < members.count() && !wanted.empty(); ++i) {
    const auto [first, last] = wanted.equal_range(bytes_of(members, i));
    for (auto found = first; found != last; ++found) both.push_back(found->second);
    wanted.erase(first, last);
  }
  std::sort(both.begin(), both.end());
  return both;
}

std::vector<AttackResult> evaluate_attacks(const std::vector<ScoreColumn>& columns,
                                           const ScoredRecords& members,
                                           const ScoredRecords& others) {
  for (const auto& [name, records] : {std::pair{"members", std::ssize(members.records)},
                                      {"non-members", std::ssize(others.records)}})
    if (records < kFewestRecords)
      throw UsageError(fmt::format("{} {} are too few for an attack; at least {} are needed",
                                   records, name, kFewestRecords));
  std::vector<AttackResult> results;
  for (std::size_t i = 0; i < columns.size();) {
    const MembershipScore score = columns[i].score;
    std::vector<int64_t> candidates;
    for (; i < columns.size() && columns[i].score == score; ++i)
      candidates.push_back(static_cast<int64_t>(i));
    results.push_back(evaluate(columns, candidates, members, others));
  }
  return results;
}

}  // namespace sfumato
