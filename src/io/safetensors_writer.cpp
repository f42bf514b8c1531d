#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "json_text.h"
#include "safetensors_header.h"
#include "sfumato/core/error.h"
#include "sfumato/io/atomic_file_writer.h"
#include "sfumato/io/safetensors.h"

namespace sfumato {
namespace {

using json_text::quote_name;

/// What a reader would refuse must not be written.
void check(const std::vector<const TensorInfo*>& tensors, const std::string& what) {
  if (tensors.size() > kMaxTensors)
    throw DataError(fmt::format("{}: more than {} tensors", what, kMaxTensors));
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo* tensor : tensors) {
    names.push_back(tensor->name);
    const auto fail = [&](const std::string& defect) {
      throw DataError(fmt::format("{}: tensor {} {}", what, quote_name(tensor->name), defect));
    };
    if (tensor->name == "__metadata__") fail("has a reserved name");
    if (tensor->shape.size() > kMaxTensorRank)
      fail(fmt::format("has more than {} dimensions", kMaxTensorRank));
    const auto wanted = safetensors::byte_count(tensor->dtype, tensor->shape);
    if (!wanted || *wanted != tensor->bytes.size())
      fail(fmt::format("has {} bytes, which shape {} of {} does not describe", tensor->bytes.size(),
                       safetensors::shape_text(tensor->shape), dtype_name(tensor->dtype)));
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    throw DataError(fmt::format("{}: two tensors are named {}", what, quote_name(*twice)));
}

/// Header text with its padding. A JSON library would sort or copy; this is one pass in file order.
std::string header_text(const std::vector<const TensorInfo*>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{\"__metadata__\":" + nlohmann::json(metadata).dump();
  std::uint64_t offset = 0;
  for (const TensorInfo* tensor : tensors) {
    const std::uint64_t end = offset + tensor->bytes.size();
    std::string shape;
    for (const std::int64_t size : tensor->shape)
      shape += fmt::format("{}{}", shape.empty() ? "" : ",", size);
    text += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        nlohmann::json(tensor->name).dump(), dtype_name(tensor->dtype), shape,
                        offset, end);
    offset = end;
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const TensorInfo> tensors,
                       std::map<std::string, std::string> metadata, unsigned mode) {
  const std::string what = fmt::format("cannot write '{}'", path.string());
  std::vector<const TensorInfo*> order;
  order.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) order.push_back(&tensor);
  check(order, what);
  std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::tie(b->dtype, a->name) < std::tie(a->dtype, b->name);
  });

  metadata["format"] = "pt";
  std::string header;
  try {
    header = header_text(order, metadata);
  } catch (const nlohmann::json::type_error& error) {
    throw DataError(fmt::format("{}: a tensor name or metadata string is not valid UTF-8 ({})",
                                what, error.what()));
  }
  if (header.size() > kMaxSafetensorsHeader)
    throw DataError(fmt::format("{}: names and metadata take {} bytes, more than the format's {}",
                                what, header.size(), kMaxSafetensorsHeader));

  AtomicFileWriter file(path, mode);
  const std::uint64_t length = header.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const TensorInfo* tensor : order) file.write(tensor->bytes);
  file.commit();
}

}  // namespace sfumato
