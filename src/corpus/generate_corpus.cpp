#include "sfumato/corpus/generate_corpus.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"

namespace sfumato {
namespace {

/// uint8 [N, H, W, C] -> N pictures.
std::vector<Image> pictures_of(const at::Tensor& pixels) {
  const int64_t count = pixels.size(0), bytes = pixels[0].numel();
  const uint8_t* data = pixels.const_data_ptr<uint8_t>();
  std::vector<Image> pictures;
  for (int64_t i = 0; i < count; ++i)
    pictures.push_back({.height = pixels.size(1),
                        .width = pixels.size(2),
                        .channels = pixels.size(3),
                        .pixels = {data + i * bytes, data + (i + 1) * bytes}});
  return pictures;
}

/// The images that rank 0 names, on all ranks.
std::vector<ImageId> from_leader(Communicator& ranks, const std::vector<ImageId>& ids) {
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

/// Draws `ids` into `rows` [N, ...], in as many goes as the memory takes.
void draw_into(const at::Tensor& rows, std::span<const ImageId> ids, const ImageSampler& sampler,
               int64_t& batch) {
  for (int64_t first = 0; first < std::ssize(ids);) {
    const int64_t count = std::min(batch, std::ssize(ids) - first);
    try {
      rows.narrow(0, first, count)
          .copy_(sampler.draw(ids.subspan(static_cast<size_t>(first), static_cast<size_t>(count))));
      first += count;
    } catch (const c10::OutOfMemoryError&) {
      if (batch == 1) throw;
      batch = (batch + 1) / 2;
      log_warning(fmt::format("out of memory: {} images at a time from here on", batch));
    }
  }
}

[[noreturn]] void stopped(const CorpusWriter& writer) {
  throw Interrupted(
      fmt::format("stopped with {} of {} images in '{}'; run the same command again to continue",
                  writer.done(), writer.total(), writer.spec().folder.string()));
}

}  // namespace

void generate_corpus(Communicator& ranks, CorpusWriter* writer, const CorpusSource& source,
                     const ImageShape& shape,
                     const std::function<void(int64_t done, int64_t drawn)>& progress) {
  if (ranks.alone()) return generate_corpus(*writer, source, progress);
  int64_t drawn = 0, batch = source.batch;
  while (true) {
    const std::vector<ImageId> ids =
        from_leader(ranks, writer != nullptr ? writer->next(source.batch * ranks.size())
                                             : std::vector<ImageId>{});
    if (ids.empty()) return;
    if (ranks.any(stop_requested())) {
      ranks.leave();
      if (writer != nullptr) stopped(*writer);
      throw Interrupted("stopped; run the same command again to continue");
    }
    // Each rank fills in its own images; zeros are added to them.
    const at::Tensor pixels =
        at::zeros({std::ssize(ids), shape.height, shape.width, shape.channels}, at::kInt);
    const Slice own = slice_of(std::ssize(ids), ranks.rank(), ranks.size());
    draw_into(
        pixels.narrow(0, own.begin, own.size()),
        std::span(ids).subspan(static_cast<size_t>(own.begin), static_cast<size_t>(own.size())),
        *source.sampler, batch);
    ranks.all_reduce_sum({pixels});
    if (writer == nullptr) continue;
    writer->add(pictures_of(pixels.to(at::kByte)));
    drawn += std::ssize(ids);
    if (progress) progress(writer->done(), drawn);
  }
}

void generate_corpus(CorpusWriter& writer, const CorpusSource& source,
                     const std::function<void(int64_t done, int64_t drawn)>& progress) {
  int64_t drawn = 0, batch = source.batch;
  while (true) {
    const std::vector<ImageId> ids = writer.next(batch);
    if (ids.empty()) return;
    if (stop_requested()) stopped(writer);
    try {
      writer.add(pictures_of(source.sampler->draw(ids)));
    } catch (const c10::OutOfMemoryError&) {
      if (batch == 1) throw;
      batch = (batch + 1) / 2;
      log_warning(fmt::format("out of memory: {} images at a time from here on", batch));
      continue;
    }
    drawn += static_cast<int64_t>(ids.size());
    if (progress) progress(writer.done(), drawn);
  }
}

}  // namespace sfumato
