#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sfumato/features/labelled_images.h"

namespace sfumato {

struct ClassifierOptions {
  int64_t epochs = 10, batch = 64;
  double learning_rate = 1e-3;  ///< of Adam
  /// Images at the end of a shuffled set that choose the epoch, at most this share of all.
  int64_t selection = 5000;
  double most_selected = 1.0 / 6;
  uint64_t seed = 0;
};

/// What the classifier is, in a line, as it stands beside its numbers.
std::string classifier_description(const ClassifierOptions& options);

struct Accuracy {
  double value = 0;
  std::vector<double> per_class;  ///< NaN for classes without an image
  int64_t images = 0;
};

/// The small convolutional network by which corpora are compared where two cores train (Bie et al.
/// 2023; PyTorch's MNIST example): 3x3 convolutions of 32 and 64 channels, pooling by two, 128
/// units, dropout .25 and .5, Adam, cross entropy, pixels in [-1, 1]; images above 32 pixels are
/// averaged down to 32. PyTorch's starting values. For evaluation alone: nothing private is in its
/// training but what the caller gives it, and it is never written.
class SmallClassifier {
 public:
  /// Shuffles, sets the last images apart, and keeps the weights of the epoch that does best on
  /// these: nothing but `images` chooses. DataError: fewer than two classes with images, or too few
  /// images. Interrupted if a stop signal came. The same seed and threads give the same weights.
  SmallClassifier(const LabelledImages& images, const ClassifierOptions& options);

  /// int64 [n], from uint8 [n, H, W, C].
  at::Tensor predict(const at::Tensor& images) const;
  Accuracy accuracy(const LabelledImages& images) const;

  int64_t epoch() const { return epoch_; }  ///< the one that was kept, from 1
  double selection_accuracy() const { return selection_accuracy_; }
  int64_t trained_on() const { return trained_on_; }

 private:
  std::vector<at::Tensor> weights_;  ///< weight and bias of each of the four layers
  int64_t num_classes_ = 0;
  int64_t epoch_ = 0, trained_on_ = 0;
  double selection_accuracy_ = 0;
};

}  // namespace sfumato
