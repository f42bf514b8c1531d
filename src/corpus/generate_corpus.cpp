#include "sfumato/corpus/generate_corpus.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/generate/diffusion/sample_images.h"

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

}  // namespace

void generate_corpus(CorpusWriter& writer, const CorpusSource& source,
                     const std::function<void(int64_t done, int64_t drawn)>& progress) {
  int64_t drawn = 0, batch = source.batch;
  while (true) {
    const std::vector<ImageId> ids = writer.next(batch);
    if (ids.empty()) return;
    if (stop_requested())
      throw Interrupted(
          fmt::format("stopped with {} of {} images in '{}'; run the same command "
                      "again to continue",
                      writer.done(), writer.total(), writer.spec().folder.string()));
    try {
      writer.add(pictures_of(sample_images(source.network, *source.solver, writer.spec().shape, ids,
                                           source.with_labels, source.seed, source.device)));
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
