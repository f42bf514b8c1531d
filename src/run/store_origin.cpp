#include "run/store_origin.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/data/store_manifest.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

std::string text_in(const nlohmann::json& json, const char* member) {
  const auto at = json.is_object() ? json.find(member) : json.end();
  return at != json.end() && at->is_string() ? at->get<std::string>() : std::string();
}

nlohmann::json member_of(const nlohmann::json& json, const char* member) {
  return json.is_object() ? json.value(member, nlohmann::json()) : nlohmann::json();
}

bool lies_in(const fs::path& inner, const fs::path& outer) {
  return std::ranges::mismatch(outer, inner).in1 == outer.end();
}

/// Whether one is the other or lies in it, as they are named or where links lead.
bool nested(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  const auto either = [](const fs::path& one, const fs::path& other) {
    return lies_in(one, other) || lies_in(other, one);
  };
  std::error_code ignored;
  const auto plain = [](const std::string& path) {
    fs::path normal = fs::path(path).lexically_normal();
    return normal.has_filename() ? normal : normal.parent_path();
  };
  return either(plain(a), plain(b)) ||
         either(fs::weakly_canonical(plain(a), ignored), fs::weakly_canonical(plain(b), ignored));
}

}  // namespace

StoreOrigin origin_of(const fs::path& folder) {
  try {
    const nlohmann::json manifest = store_manifest(folder);
    if (manifest.is_null()) return {};
    const nlohmann::json preparation = member_of(manifest, "preparation");
    return {text_in(manifest, "manifest_hash"), text_in(preparation, "split_of"),
            text_in(member_of(member_of(manifest, "files"), "records.bin"), "sha256"),
            text_in(preparation, "source")};
  } catch (const DataError&) {
    return {};  // other programs have manifests too
  }
}

std::string why_same(const StoreOrigin& a, const StoreOrigin& b) {
  if (!a.hash.empty() && a.hash == b.hash) return "it is the private images' own";
  if (!a.pixels.empty() && a.pixels == b.pixels)
    return "it holds the same images as the private one";
  if (!a.hash.empty() && b.split_of == a.hash) return "the private images are a part of it";
  if (!a.split_of.empty() && a.split_of == b.hash) return "it is a part of the private images";
  if (!a.split_of.empty() && a.split_of == b.split_of)
    return "it is a part of the same set as the private images";
  if (nested(a.source, b.source))
    return fmt::format(
        "it was prepared from '{}', and the private one from '{}', so that both may hold the same "
        "images: keep public images in a folder or file of their own, apart from the private ones, "
        "and prepare them from there",
        a.source, b.source);
  return {};
}

}  // namespace sfumato
