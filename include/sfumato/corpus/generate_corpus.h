#pragma once
#include <cstdint>
#include <functional>

#include "sfumato/corpus/candidate_choice.h"
#include "sfumato/corpus/corpus_writer.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/generate/image_sampler.h"

namespace sfumato {

/// What draws the images of a corpus.
struct CorpusSource {
  const ImageSampler* sampler = nullptr;
  int64_t batch = 64;  ///< images drawn together, fewer if memory runs out; changes none of them
  ImageShape shape;
  int64_t candidates = 1;  ///< drawn for each image that is kept
  /// What keeps them, on rank 0; null where there is one candidate.
  const CandidateChoice* choice = nullptr;
};

/// Draws every image that `writer` still lacks; several ranks draw each its share of a batch, rank
/// 0 alone has a writer (others null) and hears of progress. The images are those of one process,
/// beyond rounding, with which a choice among candidates may tip over. `progress` (may be empty)
/// hears of each batch: images done, those of candidates in part, and images drawn by this call.
///
/// Candidates are chosen among those of a stretch of the corpus (corpus_stretches): candidate j of
/// image i of a class is the sampler's image i * candidates + j. A corpus that is continued draws
/// all candidates of the stretch in which it stopped again.
///
/// Collective. Interrupted on all ranks, at a batch boundary, when a stop signal came to one; the
/// corpus can then be continued.
void generate_corpus(Communicator& ranks, CorpusWriter* writer, const CorpusSource& source,
                     const std::function<void(double done, int64_t drawn)>& progress);

/// Ends of the stretches of a corpus of `total` images, of about the same length: the fewest whose
/// candidates are 8192 at most and take 256 MB at most, each with its `image_bytes`.
std::vector<int64_t> corpus_stretches(int64_t total, int64_t candidates, int64_t image_bytes);

}  // namespace sfumato
