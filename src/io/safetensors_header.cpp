#include "safetensors_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <string>
#include <unordered_set>
#include <utility>

#include "json_text.h"
#include "sfumato/core/error.h"

namespace sfumato::safetensors {
namespace {

using json_text::quote_name;
using nlohmann::json;

/// Reads the header event by event, without a tree: whatever the header holds, memory stays near
/// its length. The grammar is
///   { "__metadata__"?: {string: string} | null,
///     name: {"dtype": string, "shape": [whole...], "data_offsets": [whole, whole]} ... }
class HeaderReader : public json::json_sax_t {
 public:
  explicit HeaderReader(json_text::Reporter& reporter) : reporter_(reporter) {}
  Header take() { return std::move(header_); }

  bool null() override {
    if (state_ == State::kMetadataValue) {  // some writers store null for "none"
      state_ = State::kNames;
      return true;
    }
    unexpected("null");
  }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool number_integer(std::int64_t value) override {
    unexpected(fmt::format("the number {}", value));
  }
  bool number_float(double, const std::string& text) override {
    unexpected(fmt::format("the number {}", quote_name(text)));
  }
  bool binary(json::binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(std::uint64_t value) override {
    if (state_ == State::kShape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        reporter_.fail(fmt::format("{} has the size {} in its shape", tensor(), value));
      if (entry_.shape.size() >= kMaxTensorRank)
        reporter_.fail(fmt::format("{} has more than {} dimensions", tensor(), kMaxTensorRank));
      entry_.shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (state_ == State::kOffsets && offsets_seen_ < 2) {
      (offsets_seen_++ == 0 ? entry_.begin : entry_.end) = value;
      return true;
    }
    unexpected(fmt::format("the number {}", value));
  }

  bool string(std::string& value) override {
    if (state_ == State::kMetadata) {
      if (header_.metadata.size() >= kMaxTensors)
        reporter_.fail(fmt::format("more than {} keys in __metadata__", kMaxTensors));
      header_.metadata.emplace(std::move(metadata_key_), std::move(value));
      return true;
    }
    if (state_ == State::kField && field_ == kDtype) {
      const auto dtype = dtype_from_name(value);
      if (!dtype)
        reporter_.fail(fmt::format("{} has unknown dtype {}", tensor(), quote_name(value)));
      entry_.dtype = *dtype;
      state_ = State::kFields;
      return true;
    }
    unexpected(fmt::format("the string {}", quote_name(value)));
  }

  bool start_object(std::size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kNames;
    } else if (state_ == State::kEntry) {
      state_ = State::kFields;
    } else if (state_ == State::kMetadataValue) {
      state_ = State::kMetadata;
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ != State::kField || field_ == kDtype) unexpected("an array");
    state_ = field_ == kShape ? State::kShape : State::kOffsets;
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && offsets_seen_ != 2)
      reporter_.fail(fmt::format("data_offsets of {} need two numbers", tensor()));
    state_ = State::kFields;
    return true;
  }

  bool end_object() override {
    if (state_ == State::kFields) {
      for (int i = 0; i < 3; ++i)
        if ((fields_seen_ >> i & 1) == 0)
          reporter_.fail(fmt::format("{} has no {}", tensor(), quote_name(kFieldNames[i])));
      if (header_.entries.size() >= kMaxTensors)
        reporter_.fail(fmt::format("more than {} tensors", kMaxTensors));
      header_.entries.push_back(std::move(entry_));
    }
    state_ = state_ == State::kNames ? State::kStart : State::kNames;
    return true;
  }

  bool key(std::string& name) override {
    if (state_ == State::kNames) {
      if (!names_.insert(name).second)
        reporter_.fail(fmt::format("the name {} stands twice", quote_name(name)));
      if (name == "__metadata__") {
        state_ = State::kMetadataValue;
      } else {
        entry_ = Entry{};
        entry_.name = std::move(name);
        fields_seen_ = 0;
        offsets_seen_ = 0;
        state_ = State::kEntry;
      }
    } else if (state_ == State::kMetadata) {
      if (header_.metadata.contains(name))
        reporter_.fail(fmt::format("the key {} stands twice in __metadata__", quote_name(name)));
      metadata_key_ = std::move(name);
    } else {
      begin_field(name);
    }
    return true;
  }

  bool parse_error(std::size_t at, const std::string&, const json::exception& error) override {
    reporter_.fail_syntax(at, error.what());
  }

 private:
  enum class State {
    kStart,
    kNames,
    kEntry,
    kFields,
    kField,
    kShape,
    kOffsets,
    kMetadataValue,
    kMetadata,
  };
  enum Field { kDtype, kShape, kOffsets };
  static constexpr std::string_view kFieldNames[] = {"dtype", "shape", "data_offsets"};

  void begin_field(const std::string& name) {
    const auto* found = std::find(std::begin(kFieldNames), std::end(kFieldNames), name);
    if (found == std::end(kFieldNames))
      reporter_.fail(fmt::format("{} has an unknown field {}", tensor(), quote_name(name)));
    field_ = static_cast<Field>(found - std::begin(kFieldNames));
    if ((fields_seen_ >> field_ & 1) != 0)
      reporter_.fail(fmt::format("{} has {} twice", tensor(), quote_name(name)));
    fields_seen_ |= 1 << field_;
    state_ = State::kField;
  }

  std::string tensor() const { return fmt::format("tensor {}", quote_name(entry_.name)); }

  [[noreturn]] void unexpected(const std::string& found) const {
    std::string wanted;
    switch (state_) {
      case State::kStart: wanted = "the header must be an object"; break;
      case State::kEntry:
        wanted = fmt::format("{} must be an object with dtype, shape and data_offsets", tensor());
        break;
      case State::kField:
        wanted = fmt::format("{} of {} must be {}", quote_name(kFieldNames[field_]), tensor(),
                             field_ == kDtype ? "a string" : "an array");
        break;
      case State::kShape:
        wanted = fmt::format("the shape of {} must hold whole numbers from 0", tensor());
        break;
      case State::kOffsets:
        wanted = fmt::format("data_offsets of {} must be two whole numbers from 0", tensor());
        break;
      default: wanted = "__metadata__ must map strings to strings"; break;
    }
    reporter_.fail(fmt::format("{}; found {}", wanted, found));
  }

  json_text::Reporter& reporter_;
  Header header_;
  std::unordered_set<std::string> names_;
  State state_ = State::kStart;
  Entry entry_;
  Field field_ = kDtype;
  int fields_seen_ = 0;
  int offsets_seen_ = 0;
  std::string metadata_key_;
};

void check_layout(const std::vector<Entry>& entries, std::uint64_t data_size,
                  const std::string& what) {
  const auto fail = [&](const Entry& entry, const std::string& defect) {
    throw DataError(fmt::format("{}: tensor {} {}", what, quote_name(entry.name), defect));
  };
  std::uint64_t covered = 0;
  for (const Entry& entry : entries) {
    const std::string range = fmt::format("has data_offsets [{}, {}]", entry.begin, entry.end);
    if (entry.begin > entry.end) fail(entry, range + ", which end before they begin");
    if (entry.end > data_size)
      fail(entry, fmt::format("{}, beyond the {} bytes of data; the file is cut short or damaged",
                              range, data_size));
    if (entry.begin < covered) fail(entry, range + ", which overlap another tensor");
    if (entry.begin > covered)
      fail(entry, fmt::format("{}, leaving a hole from byte {}", range, covered));
    const auto wanted = byte_count(entry.dtype, entry.shape);
    if (!wanted)
      fail(entry,
           fmt::format("has shape {} of {}, which is no whole, representable number of bytes",
                       shape_text(entry.shape), dtype_name(entry.dtype)));
    if (*wanted != entry.end - entry.begin)
      fail(entry, fmt::format("{}, but shape {} of {} takes {} bytes", range,
                              shape_text(entry.shape), dtype_name(entry.dtype), *wanted));
    covered = entry.end;
  }
  if (covered != data_size)
    throw DataError(
        fmt::format("{}: {} bytes after the last tensor; the file was appended to or "
                    "its header is damaged",
                    what, data_size - covered));
}

}  // namespace

std::optional<std::uint64_t> byte_count(TensorDtype dtype, const std::vector<std::int64_t>& shape) {
  // A zero anywhere makes the tensor empty, but the other sizes must still multiply: a consumer
  // computes strides from them.
  std::uint64_t bits = static_cast<std::uint64_t>(dtype_bits(dtype));
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bits, static_cast<std::uint64_t>(size), &bits)) {
      return std::nullopt;
    }
  }
  if (empty) return 0;
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Header parse_header(std::string_view text, std::uint64_t data_size, const std::string& what) {
  json_text::Reporter reporter(text, what + ": header");
  if (!text.starts_with('{')) reporter.fail_at(1, "does not start with '{'; not safetensors");
  HeaderReader reader(reporter);
  json_text::parse(reporter, reader);
  Header header = reader.take();
  std::sort(header.entries.begin(), header.entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_layout(header.entries, data_size, what);
  return header;
}

}  // namespace sfumato::safetensors
