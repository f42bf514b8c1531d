#pragma once
// What every JSON reader of this area shares: positions for messages, readable names, and a parser
// that refuses what nlohmann's own accepts (a NUL byte as the end of the text).

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace sfumato::json_text {

/// A name from a file, quoted for a message: control characters and bytes that are no printable
/// ASCII or UTF-8 lead/continuation are escaped, long names are cut.
std::string quote_name(std::string_view name);

/// "line 3, column 7" (both from 1, columns in bytes) of the byte before `offset`.
std::string place(std::string_view text, std::size_t offset);

/// Forward iterator over text that leaves behind how far the parser has read, so that a SAX
/// callback can say where it is (nlohmann tells positions for syntax errors only).
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, const char* begin, std::size_t* consumed)
      : at_(at), begin_(begin), consumed_(consumed) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    ++at_;
    *consumed_ = static_cast<std::size_t>(at_ - begin_);
    return *this;
  }
  Cursor operator++(int) {
    Cursor old = *this;
    ++*this;
    return old;
  }
  bool operator==(const Cursor& other) const { return at_ == other.at_; }
  bool operator!=(const Cursor& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char* begin_;
  std::size_t* consumed_;
};

/// Throws DataError "<what>: <defect> (line, column)"; a SAX handler keeps one of these.
class Reporter {
 public:
  Reporter(std::string_view text, std::string what) : text_(text), what_(std::move(what)) {}
  /// At the place the parser has read up to.
  [[noreturn]] void fail(const std::string& defect) const { fail_at(consumed_, defect); }
  [[noreturn]] void fail_at(std::size_t offset, const std::string& defect) const;
  /// For nlohmann's parse_error callback.
  [[noreturn]] void fail_syntax(std::size_t offset, const std::string& parser_message) const;
  std::size_t* consumed() { return &consumed_; }
  std::string_view text() const { return text_; }

 private:
  std::string_view text_;
  std::string what_;
  std::size_t consumed_ = 0;
};

/// Runs `handler` (nlohmann's SAX interface) over reporter.text(); every defect becomes a
/// DataError.
template <class Handler>
void parse(Reporter& reporter, Handler& handler) {
  const std::string_view text = reporter.text();
  // nlohmann's lexer takes a NUL byte for the end of the input and would ignore what follows it.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos)
    reporter.fail_at(nul + 1, "NUL byte");
  const Cursor begin(text.data(), text.data(), reporter.consumed());
  const Cursor end(text.data() + text.size(), text.data(), reporter.consumed());
  nlohmann::json::sax_parse(begin, end, &handler);
}

}  // namespace sfumato::json_text
