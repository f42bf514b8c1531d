#include "sfumato/train/shared_store.h"

#include <optional>
#include <string>
#include <utility>

#include "sfumato/dist/together.h"

namespace sfumato {

RecordStore open_shared_store(const std::filesystem::path& path, Communicator& ranks) {
  std::optional<RecordStore> store;
  or_part(ranks, [&] { everywhere(ranks, [&] { store.emplace(RecordStore::open(path)); }); });
  ranks.require_same("the record store", store->manifest_hash(),
                     "copy the store of the first rank to all, or share its folder");
  // The manifest says what the files should hold. One process of each machine reads those that are
  // not the file of rank 0.
  const std::string place = std::filesystem::absolute(store->path()).lexically_normal().string();
  const bool elsewhere = place != ranks.from_leader(place);
  const bool several = ranks.any(elsewhere || ranks.local_size() < ranks.size());
  const auto verify = [&] {
    if (!several || (!elsewhere && ranks.local_rank() != 0)) return;
    const RankHold hold(ranks);
    store->verify_checksums();
  };
  or_part(ranks, [&] { everywhere(ranks, verify); });
  return std::move(*store);
}

}  // namespace sfumato
