#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace sfumato {

class RecordStore;

/// A run that took a record store as public images: it trained on them without noise.
struct PublicUse {
  std::string run_id;
  std::string place;  ///< the run directory when it was noted
};

/// In STORE/uses/public/<run id>.json, once. A store that takes no notes, as one that is shared
/// read-only, is warned of.
void note_public_use(const std::filesystem::path& store, const PublicUse& use);
/// In the order of their names. One that cannot be read counts, and its file is its place.
std::vector<PublicUse> read_public_uses(const std::filesystem::path& store);
/// Who took a store as public images, for a sentence; "" where nobody is known to have.
std::string public_use_of(const std::filesystem::path& store);

/// PrivacyError where a run took `store`, which is to be trained on privately, as public images, or
/// a copy, part or source of it that lies beside it: what that run released of them no noise
/// protects.
void require_never_public(const RecordStore& store);

}  // namespace sfumato
