#include "sfumato/io/json_file.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "json_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/stand_in_file.h"

namespace sfumato {
namespace {

using nlohmann::json;

/// Builds the value while looking at what nlohmann's own builder does not: depth and duplicates.
class TreeBuilder : public json::json_sax_t {
 public:
  explicit TreeBuilder(json_text::Reporter& reporter) : reporter_(reporter) {}
  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(std::int64_t value) override { return add(value); }
  bool number_unsigned(std::uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (open_.back()->contains(name))
      reporter_.fail(fmt::format("key {} stands twice in one object", json_text::quote_name(name)));
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t at, const std::string&, const json::exception& error) override {
    reporter_.fail_syntax(at, error.what());
  }

 private:
  json* place(json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  bool add(json value) {
    place(std::move(value));
    return true;
  }
  bool open(json container) {
    if (static_cast<int>(open_.size()) >= kMaxJsonDepth)
      reporter_.fail(fmt::format("nested deeper than {} levels", kMaxJsonDepth));
    // Stable until this container closes: its parent gets no other element before that.
    open_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  json_text::Reporter& reporter_;
  json root_;
  std::vector<json*> open_;
  std::string key_;
};

template <class Json>
void write_any(const std::filesystem::path& path, const Json& value, int indent, unsigned mode) {
  std::string text;
  try {
    text = value.dump(indent);
  } catch (const nlohmann::json::type_error& error) {
    throw DataError(fmt::format("cannot write '{}': a string in it is not valid UTF-8 ({})",
                                path.string(), error.what()));
  }
  text += '\n';
  write_file_atomic(path, text, mode);
}

std::string bounded_text(const std::filesystem::path& path) {
  std::error_code unknown;  // read_file reports a missing file
  const std::uintmax_t size = std::filesystem::file_size(path, unknown);
  if (!unknown && size > kMaxJsonBytes)
    throw DataError(fmt::format("'{}': {} bytes of JSON, more than the {} that are read",
                                path.string(), size, kMaxJsonBytes));
  return read_file(path);
}

bool is_word_character(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         c == '-' || c == '+' || c == '.';
}

/// The text with quotes around NaN, Infinity and -Infinity where they are words outside strings.
std::string with_quoted_constants(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (std::size_t i = 0; i < text.size();) {
    if (in_string || !is_word_character(text[i])) {
      if (in_string && text[i] == '\\' && i + 1 < text.size())
        out += text[i++];
      else if (text[i] == '"')
        in_string = !in_string;
      out += text[i++];
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && is_word_character(text[end])) ++end;
    const std::string_view word = text.substr(i, end - i);
    const bool constant = word == "NaN" || word == "Infinity" || word == "-Infinity";
    out += constant ? fmt::format("\"{}\"", word) : std::string(word);
    i = end;
  }
  return out;
}

}  // namespace

json parse_json(std::string_view text, const std::string& what) {
  json_text::Reporter reporter(text, what);
  TreeBuilder builder(reporter);
  json_text::parse(reporter, builder);
  return builder.take();
}

json read_json(const std::filesystem::path& path) {
  return parse_json(bounded_text(path), fmt::format("'{}'", path.string()));
}

json read_python_json(const std::filesystem::path& path) {
  const std::string text = bounded_text(path);
  refuse_git_lfs_pointer(path, text);
  return parse_json(with_quoted_constants(text), fmt::format("'{}'", path.string()));
}

void write_json_atomic(const std::filesystem::path& path, const nlohmann::json& value, int indent,
                       unsigned mode) {
  write_any(path, value, indent, mode);
}

void write_json_atomic(const std::filesystem::path& path, const nlohmann::ordered_json& value,
                       int indent, unsigned mode) {
  write_any(path, value, indent, mode);
}

}  // namespace sfumato
