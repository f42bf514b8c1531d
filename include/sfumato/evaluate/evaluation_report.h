#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/evaluate/evaluation.h"

namespace sfumato {

/// One side of an evaluation, for its pages.
struct ReportedSet {
  std::string name, identity, split;
  int64_t found = 0, used = 0;
  std::string claim;      ///< headline of a corpus' privacy card; empty: nothing is said
  std::string alarm;      ///< "VOID" or "NOT PRIVATE" where the card's claim does not stand
  bool no_claim = false;  ///< there is no card, as of public images: neither good nor alarming
};
ReportedSet reported(const ImageSet& set);

/// PNGs for the HTML page; empty: no such picture.
struct EvaluationPictures {
  std::string corpus_sheet, reference_sheet;
  /// Corpus image and nearest reference image of evaluation.nearest, in its order.
  std::vector<std::pair<std::string, std::string>> pairs;
};
/// `with_pairs`: also nearest pairs, which show images of the reference one by one. None of a
/// reference that was declared public: pairs are for private folders alone.
EvaluationPictures evaluation_pictures(const ImageSets& sets, const Evaluation& evaluation,
                                       bool with_pairs);

/// The three views. Each says first what was done for the reference's privacy, and beside every
/// number N, the split, pre-processing and the hash of weights.
///
/// JSON: a key for every number of the first network ("frechet_distance", "kid_mean", ...; null
/// where it could not be measured), "measurements" with all of them and what belongs to each,
/// "classes".
nlohmann::ordered_json to_json(const Evaluation& evaluation, const ReportedSet& corpus,
                               const ReportedSet& reference);
std::string evaluation_markdown(const Evaluation& evaluation, const ReportedSet& corpus,
                                const ReportedSet& reference);
std::string evaluation_html(const Evaluation& evaluation, const ReportedSet& corpus,
                            const ReportedSet& reference, const EvaluationPictures& pictures);

/// What was done with numbers about the reference, in a few sentences.
std::string privacy_statement(const Evaluation& evaluation);

}  // namespace sfumato
