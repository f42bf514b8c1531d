#include "sfumato/corpus/generate_corpus.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"

namespace sfumato {
namespace {

constexpr int64_t kMostCandidates = 8192, kMostCandidateBytes = int64_t{1} << 28;

/// Picture i of uint8 [N, H, W, C].
Image picture_of(const at::Tensor& pixels, int64_t i) {
  const int64_t bytes = pixels[0].numel();
  const uint8_t* data = pixels.const_data_ptr<uint8_t>() + i * bytes;
  return {.height = pixels.size(1),
          .width = pixels.size(2),
          .channels = pixels.size(3),
          .pixels = {data, data + bytes}};
}

/// The images that rank 0 names, on all ranks.
std::vector<ImageId> from_leader(Communicator& ranks, std::span<const ImageId> ids) {
  const int64_t count = ranks.from_leader(std::ssize(ids));
  std::vector<int64_t> numbers(static_cast<size_t>(2 * count));
  if (ranks.leads())
    for (size_t i = 0; i < ids.size(); ++i) {
      numbers[2 * i] = ids[i].label;
      numbers[2 * i + 1] = ids[i].index;
    }
  ranks.broadcast(std::as_writable_bytes(std::span(numbers)));
  std::vector<ImageId> all;
  for (size_t i = 0; i < numbers.size(); i += 2) all.push_back({numbers[i], numbers[i + 1]});
  return all;
}

/// Draws what rank 0 names, each rank its share.
class SharedDrawing {
 public:
  SharedDrawing(Communicator& ranks, const CorpusSource& source)
      : ranks_(ranks), source_(source), batch_(source.batch) {}

  int64_t most_at_once() const { return source_.batch * ranks_.size(); }
  /// Where this process ends on its own: others need not take it for lost.
  void leave() { ranks_.leave(); }

  /// uint8 [N, H, W, C], on rank 0 of its `ids`; on others, which name none, of those that it
  /// named. Undefined when rank 0 names none any more. `stopped` says where a stop was heard.
  at::Tensor draw(std::span<const ImageId> named, const std::function<void()>& stopped) {
    const std::vector<ImageId> ids = from_leader(ranks_, named);
    if (ids.empty()) return {};
    if (ranks_.any(stop_requested())) {
      ranks_.leave();
      stopped();
    }
    // Each rank fills in its own images; zeros are added to them.
    const at::Tensor pixels = at::zeros(
        {std::ssize(ids), source_.shape.height, source_.shape.width, source_.shape.channels},
        at::kInt);
    const Slice own = slice_of(std::ssize(ids), ranks_.rank(), ranks_.size());
    draw_into(
        pixels.narrow(0, own.begin, own.size()),
        std::span(ids).subspan(static_cast<size_t>(own.begin), static_cast<size_t>(own.size())));
    ranks_.all_reduce_sum({pixels});
    return pixels.to(at::kByte);
  }

 private:
  /// In as many goes as the memory takes.
  void draw_into(const at::Tensor& rows, std::span<const ImageId> ids) {
    for (int64_t first = 0; first < std::ssize(ids);) {
      const int64_t count = std::min(batch_, std::ssize(ids) - first);
      try {
        rows.narrow(0, first, count)
            .copy_(source_.sampler->draw(
                ids.subspan(static_cast<size_t>(first), static_cast<size_t>(count))));
        first += count;
      } catch (const c10::OutOfMemoryError&) {
        if (batch_ == 1) throw;
        batch_ = (batch_ + 1) / 2;
        log_warning(fmt::format("out of memory: {} images at a time from here on", batch_));
      }
    }
  }

  Communicator& ranks_;
  const CorpusSource& source_;
  int64_t batch_;
};

[[noreturn]] void stopped_with(const CorpusWriter& writer) {
  throw Interrupted(
      fmt::format("stopped with {} of {} images in '{}'; run the same command again to continue",
                  writer.done(), writer.total(), writer.spec().folder.string()));
}

/// All candidates of the images `ids`, those of an image in a row.
std::vector<ImageId> candidates_of(std::span<const ImageId> ids, int64_t each) {
  std::vector<ImageId> all;
  for (const ImageId& id : ids)
    for (int64_t j = 0; j < each; ++j) all.push_back({id.label, id.index * each + j});
  return all;
}

/// On rank 0: draws for a writer, and tells of it.
class CorpusMaking {
 public:
  CorpusMaking(Communicator& ranks, CorpusWriter& writer, const CorpusSource& source,
               const std::function<void(double done, int64_t drawn)>& progress)
      : drawing_(ranks, source), writer_(writer), source_(source), progress_(progress) {}

  void make_all() {
    if (source_.candidates == 1) {
      make_each();
    } else {
      int64_t begin = 0;
      for (const int64_t end :
           corpus_stretches(writer_.total(), source_.candidates, source_.shape.elements()))
        make_stretch(std::exchange(begin, end), end);
    }
    drawing_.draw({}, {});  // others need not wait for more
  }

 private:
  void make_each() {
    while (true) {
      const std::vector<ImageId> ids = writer_.next(drawing_.most_at_once());
      if (ids.empty()) return;
      const at::Tensor pixels = draw(ids);
      std::vector<Image> pictures;
      for (int64_t i = 0; i < std::ssize(ids); ++i) pictures.push_back(picture_of(pixels, i));
      writer_.add(pictures);
      tell(0);
    }
  }

  void make_stretch(int64_t begin, int64_t end) {
    const std::vector<ImageId> lacking = writer_.next(end - begin, end);
    if (lacking.empty()) return;
    const std::span<const ImageId> all =
        writer_.order().subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    const at::Tensor pixels = draw_candidates(candidates_of(all, source_.candidates));
    std::vector<int64_t> labels;
    for (const ImageId& id : all)
      labels.insert(labels.end(), static_cast<size_t>(source_.candidates), id.label);
    std::vector<std::vector<int64_t>> rows = chosen(pixels, labels);
    for (auto& of_class : rows) std::ranges::reverse(of_class);  // to be taken from the back
    std::vector<Image> pictures;
    for (const ImageId& id : all) {
      std::vector<int64_t>& left = rows[static_cast<size_t>(id.label)];
      if (pictures.size() < lacking.size() && lacking[pictures.size()] == id)
        pictures.push_back(picture_of(pixels, left.back()));
      left.pop_back();
    }
    writer_.add(pictures);
    tell(0);
  }

  std::vector<std::vector<int64_t>> chosen(const at::Tensor& pixels,
                                           std::span<const int64_t> labels) {
    try {
      return source_.choice->choose(pixels, labels, source_.candidates);
    } catch (const Interrupted&) {
      drawing_.leave();
      stopped_with(writer_);
    }
  }

  at::Tensor draw_candidates(std::span<const ImageId> ids) {
    at::Tensor pixels = at::zeros(
        {std::ssize(ids), source_.shape.height, source_.shape.width, source_.shape.channels},
        at::kByte);
    for (int64_t first = 0; first < std::ssize(ids);) {
      const int64_t count = std::min(drawing_.most_at_once(), std::ssize(ids) - first);
      pixels.narrow(0, first, count)
          .copy_(draw(ids.subspan(static_cast<size_t>(first), static_cast<size_t>(count))));
      first += count;
      if (first < std::ssize(ids)) tell(first);
    }
    return pixels;
  }

  at::Tensor draw(std::span<const ImageId> ids) {
    const at::Tensor pixels = drawing_.draw(ids, [&] { stopped_with(writer_); });
    drawn_ += std::ssize(ids);
    return pixels;
  }

  void tell(int64_t candidates_waiting) {
    if (progress_)
      progress_(static_cast<double>(writer_.done()) + static_cast<double>(candidates_waiting) /
                                                          static_cast<double>(source_.candidates),
                drawn_);
  }

  SharedDrawing drawing_;
  CorpusWriter& writer_;
  const CorpusSource& source_;
  const std::function<void(double done, int64_t drawn)>& progress_;
  int64_t drawn_ = 0;
};

}  // namespace

void generate_corpus(Communicator& ranks, CorpusWriter* writer, const CorpusSource& source,
                     const std::function<void(double done, int64_t drawn)>& progress) {
  if (writer != nullptr) return CorpusMaking(ranks, *writer, source, progress).make_all();
  SharedDrawing drawing(ranks, source);
  const auto stopped = [] { throw Interrupted("stopped; run the same command again to continue"); };
  while (drawing.draw({}, stopped).defined()) {
  }
}

std::vector<int64_t> corpus_stretches(int64_t total, int64_t candidates, int64_t image_bytes) {
  const int64_t most = std::max<int64_t>(
      std::min(kMostCandidates, kMostCandidateBytes / image_bytes) / candidates, 1);
  const int64_t stretches = (total + most - 1) / most;
  std::vector<int64_t> ends;
  for (int64_t i = 1; i <= stretches; ++i) ends.push_back(i * total / stretches);
  return ends;
}

}  // namespace sfumato
