#pragma once
#include <string>
#include <utility>
#include <vector>

#include "data/prepare_fixture.h"
#include "io/zip_bytes.h"
#include "sfumato/io/tar.h"

namespace sfumato::test {

/// Members and their content.
using Files = std::vector<std::pair<std::string, std::string>>;

class PrepareArchive : public Prepare {
 protected:
  PrepareArchive() {
    options.num_classes = 2;
    options.accept_class_names = true;
    options.allow_empty_classes = {"*"};
  }
  void put_tar(const std::string& name, const Files& files) {
    std::filesystem::create_directories((folder / name).parent_path());
    TarWriter writer(folder / name);
    for (const auto& [member, content] : files) writer.add(member, content);
    writer.finish();
  }
  void put_zip(const std::string& name, const Files& files) {
    std::vector<ZipMember> members;
    for (const auto& [member, content] : files)
      members.push_back({.name = member, .content = content, .deflated = members.size() % 2 == 0});
    std::filesystem::create_directories((folder / name).parent_path());
    put(folder / name, make_zip(members));
  }
};

}  // namespace sfumato::test
