#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/features/feature_network.h"
#include "sfumato/io/safetensors.h"

namespace sfumato {

/// A convolution with bias; its batch normalisation, if it had one, is in both.
struct FoldedConv {
  at::Tensor weight;  ///< float32 [out, in / groups, height, width]
  at::Tensor bias;    ///< float32 [out]
  int64_t stride = 1;
  std::array<int64_t, 2> padding = {0, 0};  ///< rows, columns: at both ends
  int64_t groups = 1;

  at::Tensor operator()(const at::Tensor& x) const;
  /// The same, and no value below 0.
  at::Tensor relu(const at::Tensor& x) const;
};

/// The tensors of a fixed network, by name. Errors name the file and the tensor.
class NetworkWeights {
 public:
  /// A tensor by its name and the shape that is expected; undefined if there is none.
  using Source = std::function<at::Tensor(const std::string& name, const std::vector<int64_t>&)>;
  /// `origin`: what messages call them, a file; `sha256`: what facts say.
  NetworkWeights(Source source, std::string origin, std::string sha256);
  NetworkWeights(const SafetensorsFile& file, std::string sha256);

  const std::string& sha256() const { return sha256_; }
  /// float32, contiguous. DataError if there is none, or one of another shape.
  at::Tensor tensor(const std::string& name, const std::vector<int64_t>& shape) const;
  /// `name`.weight of this shape and `name`.bias.
  FoldedConv conv(const std::string& name, const std::vector<int64_t>& shape) const;
  /// `conv`.weight, without bias, followed by the batch normalisation `norm` of running statistics.
  FoldedConv normalised(const std::string& conv, const std::string& norm, double eps,
                        const std::vector<int64_t>& shape) const;

 private:
  Source source_;
  std::string origin_, sha256_;
};

/// The one file that a network's numbers are of.
struct KnownWeights {
  std::string_view network;  ///< as in the table
  std::string_view file;     ///< its name where a folder is named
  std::string_view sha256;
  std::string_view source;       ///< where it comes from, a clause after "; "
  std::string_view folder = {};  ///< where the program comes with it: "models/public/lenet"
};

/// The file that the request names, else the one that the program comes with. UsageError: it names
/// none, and there is none; DataError: the named one is not there.
std::filesystem::path weights_path(const FeatureRequest& request, const KnownWeights& known);
/// SHA-256 of a whole file, in hexadecimal.
std::string file_sha256(const std::filesystem::path& path);
/// DataError unless the file is the known one, to the byte.
NetworkWeights read_known_weights(const FeatureRequest& request, const KnownWeights& known);

}  // namespace sfumato
