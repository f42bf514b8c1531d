#include "run/witness_folder.h"

#include <fmt/format.h>

#include "sfumato/core/file.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

void check_witness_folder(const std::filesystem::path& store) {
  make_folder(witness_folder(store), 0700);
  const std::filesystem::path probe =
      witness_folder(store) / fmt::format(".{}.probe", random_hex(4));
  write_file_atomic(probe, "", 0600);
  std::error_code ignored;
  std::filesystem::remove(probe, ignored);
}

}  // namespace sfumato
