#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>

#include "sfumato/corpus/corpus_writer.h"
#include "sfumato/generate/diffusion/denoiser.h"
#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {

/// What draws the images of a corpus.
struct CorpusSource {
  DenoiserFn network;
  const Solver* solver = nullptr;
  bool with_labels = false;
  uint64_t seed = 0;
  int64_t batch = 64;  ///< images drawn together, fewer if memory runs out; changes none of them
  c10::Device device = c10::kCPU;  ///< where the network is
};

/// Draws every image that `writer` still lacks. `progress` (may be empty) hears of each batch:
/// images done, and images drawn by this call. Interrupted, at a batch boundary, when a stop signal
/// came; the corpus can then be continued.
void generate_corpus(CorpusWriter& writer, const CorpusSource& source,
                     const std::function<void(int64_t done, int64_t drawn)>& progress);

}  // namespace sfumato
