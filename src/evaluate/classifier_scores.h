#pragma once
#include "sfumato/evaluate/evaluation.h"

namespace sfumato {

/// Trains on the corpus and tests on real images, then the other way round, and adds what is found
/// to `out`, whose classes are counted. What cannot be trained is said in out.left_out.
void add_classifier_scores(const ImageSets& sets, const ImageSet* test,
                           const EvaluationOptions& options, ClassifierKind kind, Evaluation& out);

/// A number about a network of this kind, without its value.
Measurement classifier_measurement(const std::string& key, const std::string& title,
                                   ClassifierKind kind);
/// How a classifier is trained, and how often.
std::string classifier_detail(const ClassifierOptions& options, int64_t repeats);

}  // namespace sfumato
