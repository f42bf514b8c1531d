#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/core/enum_names.h"
#include "sfumato/features/labelled_images.h"

namespace sfumato {

class ClassifierNetwork;

/// Networks that are trained on a corpus and tested on real images; the names are those of
/// --classifier. Each has its file in src/evaluate/ and a row in classifier_network.cpp.
enum class ClassifierKind {
  kSmall,      ///< what two cores train in minutes (Bie et al. 2023; PyTorch's MNIST example)
  kResNet110,  ///< He et al. 2016 for CIFAR: the three of DPImageBench
  kWrn404,     ///< WRN-40-4, Zagoruyko and Komodakis 2016
  kResNext29,  ///< ResNeXt-29 8x64d, Xie et al. 2017
};
template <>
struct EnumNames<ClassifierKind> {
  static constexpr std::string_view kWhat = "classifier";
  static constexpr EnumName<ClassifierKind> kTable[] = {{ClassifierKind::kSmall, "small"},
                                                        {ClassifierKind::kResNet110, "resnet-110"},
                                                        {ClassifierKind::kWrn404, "wrn-40-4"},
                                                        {ClassifierKind::kResNext29, "resnext-29"}};
};

struct ClassifierOptions {
  ClassifierKind kind = ClassifierKind::kSmall;
  int64_t epochs = 0, batch = 0;  ///< 0: those of the network's recipe
  double learning_rate = 0;       ///< of Adam; 0: that of the recipe
  /// Images at the end of a shuffled set that choose the epoch, at most this share of all.
  int64_t selection = 5000;
  double most_selected = 1.0 / 6;
  uint64_t seed = 0;
  c10::Device device = c10::kCPU;  ///< ready for work (open_device); where it is trained and asked
};

/// What the classifier is, in a line, as it stands beside its numbers.
std::string classifier_description(const ClassifierOptions& options);

struct Accuracy {
  double value = 0;
  std::vector<double> per_class;  ///< NaN for classes without an image
  int64_t images = 0;
};

/// A network by which corpora are compared, trained on one set: Adam, cross entropy, pixels in
/// [-1, 1]; images above 32 pixels are averaged down to 32. The large ones are trained as
/// DPImageBench does where it does not train on CIFAR-10 (Adam at 0.01, times 0.2 every 20 of 50
/// epochs, batches of 256, weights averaged by 0.9999), with two differences: statistics of batch
/// normalisation are averaged with the weights, without which early averages predict nothing, and
/// the epoch is chosen on images of the training set that are set apart. For evaluation alone:
/// nothing private is in its training but what the caller gives it, and it is never written.
class Classifier {
 public:
  /// Shuffles, sets the last images apart, and keeps the weights of the epoch that does best on
  /// these: nothing but `images` chooses. DataError: fewer than two classes with images, too few
  /// images, or too small ones. Interrupted if a stop signal came. On the CPU the same seed and
  /// threads give the same weights. On a GPU it begins with those, but dropout is drawn there, and
  /// sums are taken in no fixed order.
  Classifier(const LabelledImages& images, const ClassifierOptions& options);
  ~Classifier();
  Classifier(Classifier&&) noexcept;

  /// int64 [n] on the CPU, from uint8 [n, H, W, C] there.
  at::Tensor predict(const at::Tensor& images) const;
  Accuracy accuracy(const LabelledImages& images) const;

  int64_t epoch() const { return epoch_; }  ///< the one that was kept, from 1
  double selection_accuracy() const { return selection_accuracy_; }
  int64_t trained_on() const { return trained_on_; }

 private:
  std::unique_ptr<ClassifierNetwork> network_;
  int64_t num_classes_ = 0;
  int64_t epoch_ = 0, trained_on_ = 0;
  double selection_accuracy_ = 0;
};

}  // namespace sfumato
