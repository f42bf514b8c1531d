#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/core/file.h"

namespace sfumato {

/// Element types of the safetensors format. The order is the format's own: by alignment, and files
/// are laid out from the last of them to the first.
enum class TensorDtype {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};
inline constexpr int kTensorDtypes = 22;

/// "F32", "BF16", "F6_E2M3", ...: the name in a file.
std::string_view dtype_name(TensorDtype dtype);
/// Bits of one element: 4 or 6 for packed types, else a multiple of 8.
int dtype_bits(TensorDtype dtype);
std::optional<TensorDtype> dtype_from_name(std::string_view name);

/// One tensor, of an open file or to be written. Row-major, little-endian; `bytes` may lie at any
/// alignment (copy, never cast the pointer) and, of a file, live as long as the file object.
struct TensorInfo {
  std::string name;
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<std::int64_t> shape;  ///< [] for a scalar; every entry >= 0
  std::span<const std::byte> bytes;
  std::int64_t element_count() const;
};

/// Values as float, rounded to nearest. Takes BOOL (0 or 1), all integers, F16, BF16, F32, F64;
/// DataError for the 4-, 6- and 8-bit floats and C64.
std::vector<float> to_float32(const TensorInfo& tensor);
/// Values of an integer or BOOL tensor; DataError for floats and for U64 above 2^63 - 1.
std::vector<std::int64_t> to_int64(const TensorInfo& tensor);

inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;  ///< bytes; the format's limit
inline constexpr std::size_t kMaxTensors = 1'000'000;
inline constexpr std::size_t kMaxTensorRank = 64;

/// A safetensors file, memory-mapped and wholly checked before the constructor returns: whatever
/// the file holds, the result is either sound or a DataError that names the file and the defect.
/// Checked: header length, UTF-8, JSON, duplicate names, dtypes, shapes (also their product), and
/// that the tensors cover the data without hole, overlap or remainder. The file must not be cut
/// short while it is open (the operating system then ends the process).
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  /// Sorted by name.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return tensors_.contains(name); }
  /// DataError names the file and the nearest name if there is no such tensor.
  const TensorInfo& info(std::string_view name) const;
  /// The header's "__metadata__"; empty if it has none.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  std::vector<std::string> names_;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// The tensors of a checkpoint in one file or in shards with an index.
class SafetensorsSet {
 public:
  /// `path`: a .safetensors file; an index, x.json ({"weight_map": {tensor: file name}});
  /// a name "x.safetensors" of which only "x.safetensors.index.json" exists; or a folder with
  /// diffusion_pytorch_model.safetensors or its index. DataError if an index names a file outside
  /// its own folder, or if index and shards do not hold exactly the same tensors.
  explicit SafetensorsSet(const std::filesystem::path& path);

  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return home_.contains(name); }
  const TensorInfo& info(std::string_view name) const;
  /// What was opened: the single file or the index.
  const std::filesystem::path& path() const { return path_; }
  /// The files that hold the tensors.
  std::vector<std::filesystem::path> files() const;

 private:
  void open_shards();

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::vector<std::string> names_;
  std::map<std::string, std::size_t, std::less<>> home_;  // tensor -> index in files_
};

/// Writes a file as the reference implementation does, byte for byte: tensors by dtype from the
/// widest to the narrowest, then by name; header padded with spaces to a multiple of 8. `metadata`
/// always gets format=pt, without which some readers refuse the file. Streams the data; a reader or
/// a crash sees the old file or the whole new one. DataError (disk full, read-only folder, a name
/// twice or not UTF-8, a shape that does not fit the bytes) names path and tensor; nothing is left.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorInfo> tensors,
                       std::map<std::string, std::string> metadata = {}, unsigned mode = 0644);

}  // namespace sfumato
