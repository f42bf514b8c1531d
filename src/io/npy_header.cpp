#include "npy_header.h"

#include <fmt/format.h>

#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr std::size_t kMaxDimensions = 64;  // numpy's own bound

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::string parse(NpyHeader& header) {
    if (!take('{')) return "the header is no dictionary";
    bool seen[3] = {};
    while (!take('}')) {
      std::string key;
      if (!quoted(key) || !take(':')) return "the header is not what numpy writes";
      const int which = key == "descr" ? 0 : key == "fortran_order" ? 1 : key == "shape" ? 2 : 3;
      if (which == 3 || seen[which]) return "the header has a key too many";
      seen[which] = true;
      const std::string defect = which == 0   ? descr(header.descr)
                                 : which == 1 ? boolean(header.fortran_order)
                                              : shape(header.shape);
      if (!defect.empty()) return defect;
      if (!take(',') && !at('}')) return "the header is not what numpy writes";
    }
    if (!seen[0] || !seen[1] || !seen[2]) return "the header lacks descr, fortran_order or shape";
    return at_ == text_.size() ? "" : "text follows the header's dictionary";
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool at(char c) {
    skip_space();
    return at_ < text_.size() && text_[at_] == c;
  }
  bool take(char c) {
    if (!at(c)) return false;
    ++at_;
    skip_space();
    return true;
  }
  bool take_word(std::string_view word) {
    skip_space();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    skip_space();
    return true;
  }

  bool quoted(std::string& value) {
    const char quote = at('\'') ? '\'' : '"';
    if (!at(quote)) return false;
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) return false;
    value = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    skip_space();
    return value.find('\\') == std::string::npos;
  }

  std::string descr(std::string& value) {
    if (at('[')) return "it holds structured records; save the plain array of images or of labels";
    return quoted(value) ? "" : "its type is not what numpy writes";
  }

  std::string boolean(bool& value) {
    value = take_word("True");
    return value || take_word("False") ? "" : "fortran_order is neither True nor False";
  }

  std::string shape(std::vector<std::int64_t>& sizes) {
    if (!take('(')) return "its shape is no tuple";
    while (!take(')')) {
      std::size_t end = at_;
      while (end < text_.size() && text_[end] >= '0' && text_[end] <= '9') ++end;
      const auto size = parse_int64(text_.substr(at_, end - at_));
      if (!size || sizes.size() == kMaxDimensions) return "its shape is impossible";
      sizes.push_back(*size);
      at_ = end;
      take('L');  // Python 2 wrote long numbers so
      if (!take(',') && !at(')')) return "its shape is no tuple";
    }
    return "";
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::string parse_npy_header(std::string_view text, NpyHeader& header) {
  return Parser(text).parse(header);
}

}  // namespace sfumato
