#pragma once
#include <cstdint>
#include <functional>

#include "sfumato/corpus/corpus_writer.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/generate/image_sampler.h"

namespace sfumato {

/// What draws the images of a corpus.
struct CorpusSource {
  const ImageSampler* sampler = nullptr;
  int64_t batch = 64;  ///< images drawn together, fewer if memory runs out; changes none of them
};

/// Draws every image that `writer` still lacks. `progress` (may be empty) hears of each batch:
/// images done, and images drawn by this call. Interrupted, at a batch boundary, when a stop signal
/// came; the corpus can then be continued.
void generate_corpus(CorpusWriter& writer, const CorpusSource& source,
                     const std::function<void(int64_t done, int64_t drawn)>& progress);

/// The same where several ranks draw, each its share of the images of a batch for each of them;
/// rank 0 alone has a writer and hears of progress. The images are those of one process.
/// Collective; Interrupted on all ranks where one is asked to stop.
void generate_corpus(Communicator& ranks, CorpusWriter* writer, const CorpusSource& source,
                     const ImageShape& shape,
                     const std::function<void(int64_t done, int64_t drawn)>& progress);

}  // namespace sfumato
