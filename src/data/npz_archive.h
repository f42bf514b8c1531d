#pragma once
#include <functional>

#include "sfumato/data/prepare.h"
#include "sfumato/io/npy.h"

namespace sfumato {

/// Which arrays are read, each call from its beginning; `labels` is empty where there are none.
struct ArraySelection {
  std::function<NpyReader()> images;
  std::function<NpyReader()> labels;
};

/// From options.source: an .npy file; an .npz archive with one set of images; "ARCHIVE.npz/train"
/// for one of its splits or "ARCHIVE.npz/NAME" for an array by name. Sets are found by name, as
/// MedMNIST (train_images, train_labels, val_...), Keras (x_train, y_train), and numpy.savez
/// (images, labels; x, y; arr_0, arr_1) have them. options.labels names the labels where it is set.
/// DataError, with the names that are there, if that leaves a choice.
ArraySelection select_arrays(const PrepareOptions& options);

}  // namespace sfumato
