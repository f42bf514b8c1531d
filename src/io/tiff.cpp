#include "tiff.h"

#include "byte_view.h"

namespace sfumato {
namespace {

constexpr std::uint64_t kOrientationTag = 274, kExtraSamples = 338;

/// Bytes of one unsigned integer of a type; 0 for other types.
int integer_bytes(std::uint64_t type) {
  switch (type) {
    case 1: return 1;
    case 3: return 2;
    case 4:
    case 13: return 4;
    case 16:
    case 18: return 8;
    default: return 0;
  }
}

/// Bytes of one value of any type; 1 where it is not known.
std::uint64_t value_bytes(std::uint64_t type) {
  constexpr std::uint64_t kBytes[] = {1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 1, 1, 8, 8, 8};
  return type < std::size(kBytes) ? kBytes[type] : 1;
}

}  // namespace

const TiffField* TiffFolder::find(std::uint64_t tag) const {
  for (const TiffField& field : fields)
    if (field.tag == tag) return &field;
  return nullptr;
}

TiffReader::TiffReader(std::string_view bytes) : bytes_(bytes) {
  if (bytes.size() < 8) return;
  is_big_endian_ = bytes.starts_with("MM");
  if (!is_big_endian_ && !bytes.starts_with("II")) return;
  const std::uint64_t version = number(2, 2);
  is_big_tiff_ = version == 43 && bytes.size() >= 16 && number(4, 2) == 8 && number(6, 2) == 0;
  if (version != 42 && !is_big_tiff_) return;
  is_tiff_ = true;
  first_folder_ = is_big_tiff_ ? number(8, 8) : number(4, 4);
}

std::uint64_t TiffReader::number(std::uint64_t at, int count) const {
  return is_big_endian_ ? big_endian(bytes_, at, count) : little_endian(bytes_, at, count);
}

bool TiffReader::inside(std::uint64_t at, std::uint64_t count) const {
  return at <= bytes_.size() && count <= bytes_.size() - at;
}

std::optional<TiffFolder> TiffReader::folder(std::uint64_t at) const {
  const int count_bytes = is_big_tiff_ ? 8 : 2, offset_bytes = is_big_tiff_ ? 8 : 4;
  const std::uint64_t entry_bytes = is_big_tiff_ ? 20 : 12;
  const auto head = static_cast<std::uint64_t>(count_bytes);
  if (!is_tiff_ || at == 0 || !inside(at, head)) return std::nullopt;
  const std::uint64_t count = number(at, count_bytes);
  constexpr std::uint64_t kMaxEntries = 65535;
  if (count == 0 || count > kMaxEntries || !inside(at + head, count * entry_bytes))
    return std::nullopt;
  TiffFolder result;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t entry = at + head + i * entry_bytes;
    TiffField field{number(entry, 2), number(entry + 2, 2), 0, 0};
    field.count = number(entry + 4, offset_bytes);
    field.values_at = entry + 4 + static_cast<std::uint64_t>(offset_bytes);
    // Values that do not fit into the entry lie elsewhere.
    const auto room = static_cast<std::uint64_t>(offset_bytes);
    if (field.count > room / value_bytes(field.type))
      field.values_at = number(field.values_at, offset_bytes);
    result.fields.push_back(field);
  }
  const std::uint64_t next = at + head + count * entry_bytes;
  if (inside(next, static_cast<std::uint64_t>(offset_bytes)))
    result.next = number(next, offset_bytes);
  return result;
}

std::optional<std::uint64_t> TiffReader::value(const TiffField& field, std::uint64_t index) const {
  const int size = integer_bytes(field.type);
  const auto step = static_cast<std::uint64_t>(size);
  if (size == 0 || index >= field.count || !inside(field.values_at, 0) ||
      index >= (bytes_.size() - field.values_at) / step)
    return std::nullopt;
  return number(field.values_at + index * step, size);
}

std::uint64_t TiffReader::value_or(const TiffFolder& folder, std::uint64_t tag,
                                   std::uint64_t missing) const {
  const TiffField* field = folder.find(tag);
  return field == nullptr ? missing : value(*field).value_or(missing);
}

std::string TiffReader::encode(const TiffField& field, std::uint64_t value) const {
  const int size = integer_bytes(field.type);
  std::string result;
  for (int i = 0; i < size; ++i) {
    const int shift = 8 * (is_big_endian_ ? size - 1 - i : i);
    result += static_cast<char>(value >> shift & 0xFF);
  }
  return result;
}

std::string plain_tiff(std::string_view bytes) {
  std::string copy(bytes);
  const TiffReader reader(bytes);
  const auto folder = reader.folder(reader.first_folder());
  if (!folder) return copy;
  const auto replace = [&](std::uint64_t tag, std::uint64_t old_value, std::uint64_t new_value) {
    const TiffField* field = folder->find(tag);
    if (field == nullptr) return;
    const auto value = reader.value(*field);
    if (!value || (old_value != 0 && *value != old_value)) return;
    const std::string code = reader.encode(*field, new_value);
    copy.replace(field->values_at, code.size(), code);
  };
  replace(kOrientationTag, 0, 1);
  // 2, alpha apart from the colours, would make libtiff multiply them; 1 says that it is done.
  replace(kExtraSamples, 2, 1);
  return copy;
}

}  // namespace sfumato
