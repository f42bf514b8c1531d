#pragma once
#include <filesystem>

#include "sfumato/data/record_store.h"
#include "sfumato/dist/communicator.h"

namespace sfumato {

/// A record store that all ranks read: that of rank 0, with the same bytes. Collective. Where it
/// throws, all ranks do, and have left: UsageError names the ranks whose store is another one,
/// errors of RecordStore::open and verify_checksums go to the rank that has them.
RecordStore open_shared_store(const std::filesystem::path& path, Communicator& ranks);

}  // namespace sfumato
