#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sfumato {

/// A privacy card among the images of an archive.
struct CardFound {
  std::string place;                ///< "ARCHIVE:MEMBER"
  std::optional<std::string> text;  ///< empty where it cannot be read, or is not there
};

/// The privacy cards that speak of the images in `source`, for the manifest: those in its folder,
/// in the two above it and in the two below, through links, and `inside` of its archives. A list of
/// {"file", "sha256", "text"}; "text" is null where the file cannot be read as JSON, or is missing
/// where the lineage.json of a corpus of ours says that there was one. Images of ours that lie
/// without both are not known.
nlohmann::json cards_of_source(const std::filesystem::path& source,
                               const std::vector<CardFound>& inside = {});

/// Collects the cards in archives, as their members pass by. Those speak of the images in a folder
/// of the archives that lie in a folder above it, in itself or below it.
class CardsInArchives {
 public:
  /// `folder`: "" for all that is in the archives.
  explicit CardsInArchives(std::string folder) : folder_(std::move(folder)) {}

  /// Whether the content of this member is to be handed to add().
  bool wants(std::string_view member) const;
  /// Nothing in place of a content that cannot be read.
  void add(const std::string& archive, std::string_view member,
           const std::optional<std::string>& content);
  /// One for equal texts: copies of a card are of one network.
  std::vector<CardFound> found() const;

  /// More are no content of a card.
  static constexpr std::int64_t kMostBytes = 1 << 20;

 private:
  std::string folder_;
  std::vector<CardFound> cards_;
  /// Folders with the lineage of a corpus of ours, by archive.
  std::vector<std::pair<std::string, std::string>> corpora_;
};

}  // namespace sfumato
