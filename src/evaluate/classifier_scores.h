#pragma once
#include "sfumato/evaluate/evaluation.h"

namespace sfumato {

/// Trains on the corpus and tests on real images, then the other way round, and adds what is found
/// to `out`, whose classes are counted. What cannot be trained is said in out.left_out.
void add_classifier_scores(const ImageSets& sets, const ImageSet* test,
                           const EvaluationOptions& options, ClassifierKind kind, Evaluation& out);

}  // namespace sfumato
