#pragma once
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato::test {

/// "" if `xml` is well-formed as far as pictures need it: one element whose tags nest, attributes
/// in quotes and once each, & and < nowhere else. Else what is wrong.
inline std::string xml_defect(std::string_view xml) {
  const auto starts = [&](const char* word) { return xml.starts_with(word); };
  const auto name_of = [&] {
    std::size_t end = 0;
    while (end < xml.size() && (std::isalnum(static_cast<unsigned char>(xml[end])) != 0 ||
                                xml[end] == '-' || xml[end] == ':'))
      ++end;
    const std::string name(xml.substr(0, end));
    xml.remove_prefix(end);
    return name;
  };
  const auto entity = [&] {
    for (const char* known : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"})
      if (starts(known)) return true;
    return false;
  };
  std::vector<std::string> open;
  bool any = false;
  while (!xml.empty()) {
    if (xml[0] != '<') {
      if (xml[0] == '&' && !entity()) return "a bare &";
      if (open.empty() && std::isspace(static_cast<unsigned char>(xml[0])) == 0)
        return "text outside of the element";
      xml.remove_prefix(1);
      continue;
    }
    xml.remove_prefix(1);
    if (starts("/")) {
      xml.remove_prefix(1);
      const std::string name = name_of();
      if (open.empty() || open.back() != name || !starts(">"))
        return "</" + name + "> closes nothing";
      open.pop_back();
      xml.remove_prefix(1);
      continue;
    }
    if (open.empty() && any) return "a second element";
    any = true;
    const std::string name = name_of();
    if (name.empty()) return "a bare <";
    std::vector<std::string> attributes;
    while (starts(" ")) {
      xml.remove_prefix(1);
      const std::string attribute = name_of();
      for (const std::string& other : attributes)
        if (other == attribute) return "two attributes " + attribute + " of " + name;
      attributes.push_back(attribute);
      if (attribute.empty() || !starts("=\"")) return "no quotes in " + name;
      xml.remove_prefix(2);
      while (!xml.empty() && xml[0] != '"') {
        if (xml[0] == '<' || (xml[0] == '&' && !entity())) return "markup in " + attribute;
        xml.remove_prefix(1);
      }
      if (xml.empty()) return "an open quote in " + name;
      xml.remove_prefix(1);
    }
    if (starts("/>")) {
      xml.remove_prefix(2);
    } else if (starts(">")) {
      xml.remove_prefix(1);
      open.push_back(name);
    } else {
      return "<" + name + " does not end";
    }
  }
  return open.empty() ? std::string() : open.back() + " stays open";
}

}  // namespace sfumato::test
