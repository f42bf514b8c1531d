#include "yaml_text.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <utility>
#include <vector>

namespace sfumato {
namespace {

constexpr std::size_t kMaxDepth = 20;
constexpr const char* kQuoteHint = "; put quotes around a text that begins with & or *";

/// Builds the tree from the parser's events. Anchors are refused rather than resolved: a settings
/// file needs none, and nested aliases can blow up a small file to any size.
class TreeBuilder : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) refuse(mark, "a second document; keep all settings in one");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    add(node(mark, GivenValue::Kind::kNull));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_anchor(mark, 1); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    GivenValue scalar = node(mark, GivenValue::Kind::kText);
    scalar.text = value;
    scalar.quoted = tag == "!";  // the parser's mark for scalars that are not plain
    add(std::move(scalar));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, GivenValue::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, GivenValue::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

  GivenValue take_root() { return std::move(root_); }

 private:
  [[noreturn]] static void refuse(const YAML::Mark& mark, const std::string& message) {
    throw YAML::ParserException(mark, message);
  }
  static void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor)
      refuse(mark,
             std::string("anchors and aliases (&name, *name) are not supported") + kQuoteHint);
  }
  static void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!")
      refuse(mark,
             "tags are not supported; put quotes around a text that begins with an exclamation "
             "mark");
  }
  static GivenValue node(const YAML::Mark& mark, GivenValue::Kind kind) {
    GivenValue value;
    value.kind = kind;
    value.line = mark.line + 1;
    value.column = mark.column + 1;
    return value;
  }
  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            GivenValue::Kind kind) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (open_.size() == kMaxDepth)
      refuse(mark, fmt::format("nested deeper than {} levels; settings need four", kMaxDepth));
    open_.push_back(node(mark, kind));
  }
  void close() {
    GivenValue done = std::move(open_.back());
    open_.pop_back();
    add(std::move(done));
  }
  void add(GivenValue value) {
    (open_.empty() ? root_ : open_.back().items.emplace_back()) = std::move(value);
  }

  int documents_ = 0;
  std::vector<GivenValue> open_;
  GivenValue root_;
};

/// Bytes of the UTF-8 sequence at the start of `text`; 0 if it is malformed, overlong, a surrogate
/// or beyond U+10FFFF (RFC 3629).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  if (lead == 0xE0 && byte(1) < 0xA0) return 0;
  if (lead == 0xED && byte(1) > 0x9F) return 0;
  if (lead == 0xF0 && byte(1) < 0x90) return 0;
  if (lead == 0xF4 && byte(1) > 0x8F) return 0;
  return length;
}

/// The remedy for the two mistakes that yaml-cpp's own words do not explain.
std::string syntax_hint(std::string_view text, int line, const std::string& message) {
  const auto says = [&](const char* word) { return message.find(word) != std::string::npos; };
  if ((says("alias") || says("anchor")) && !says("quotes")) return kQuoteHint;
  for (int i = 1; i < line; ++i) text.remove_prefix(std::min(text.find('\n') + 1, text.size()));
  const std::string_view indentation =
      text.substr(0, std::min(text.find_first_not_of(" \t"), text.size()));
  if (indentation.find('\t') != std::string_view::npos) return "; indent with spaces, not tabs";
  return {};
}

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7F;
}

}  // namespace

GivenValue parse_yaml(std::string_view text, std::optional<Mistake>& mistake) {
  mistake = find_unprintable(text);
  if (mistake) return {};
  TreeBuilder builder;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    const int line = std::max(error.mark.line, 0) + 1;
    mistake = Mistake{line, std::max(error.mark.column, 0) + 1,
                      "not valid YAML here: " + error.msg + syntax_hint(text, line, error.msg)};
    return {};
  }
  return builder.take_root();
}

std::optional<Mistake> find_unprintable(std::string_view text) {
  int line = 1;
  int column = 1;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) return Mistake{line, column, "not valid UTF-8"};
    if (is_control(c) && c != '\n' && c != '\r' && c != '\t')
      return Mistake{line, column,
                     fmt::format("control character 0x{:02x}; this must be plain text",
                                 static_cast<unsigned>(static_cast<unsigned char>(c)))};
    column = c == '\n' ? 1 : column + 1;
    line += c == '\n';
    i += length;
  }
  return std::nullopt;
}

std::string yaml_quote(std::string_view text) {
  static constexpr std::array<std::string_view, 10> kReserved{
      "null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"};
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto plain = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '/' || c == '-';
  };
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  if (!text.empty() && (letter(text[0]) || text[0] == '/' || text[0] == '_') &&
      std::all_of(text.begin(), text.end(), plain) &&
      std::find(kReserved.begin(), kReserved.end(), lower) == kReserved.end())
    return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (is_control(c))
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    else
      out += c;
  }
  return out + '"';
}

std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (out.size() + length > kLongest) return out + "...";
    if (length == 0 || is_control(text[i])) {
      out += '?';
      ++i;
      continue;
    }
    out += text.substr(i, length);
    i += length;
  }
  return out;
}

}  // namespace sfumato
