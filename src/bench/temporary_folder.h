#pragma once
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "sfumato/core/error.h"

namespace sfumato {

/// Of its own, and removed with it: for the ledger of steps that are timed.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "sfumato-bench-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr)
      throw DeviceError("cannot make a temporary folder " + name +
                        "; set TMPDIR to a folder that "
                        "can be written");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace sfumato
