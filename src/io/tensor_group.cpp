#include "sfumato/io/tensor_group.h"

#include <utility>

namespace sfumato {
namespace {

std::filesystem::path file_of(const std::filesystem::path& folder, const std::string& name) {
  return folder / (name + ".safetensors");
}

}  // namespace

void write_tensor_group(const std::filesystem::path& folder, const TensorGroup& group,
                        unsigned mode) {
  write_safetensors(file_of(folder, group.name), group.tensors, {}, mode);
}

TensorGroup read_tensor_group(const std::filesystem::path& folder, const std::string& name,
                              const std::vector<std::string>& names) {
  const SafetensorsFile file(file_of(folder, name));
  // A copy: whoever writes to the file from here on changes neither what is hashed nor what is
  // used.
  auto memory = std::make_shared<std::vector<std::vector<std::byte>>>();
  TensorGroup group{name, {}, memory};
  for (const std::string& each : names) {
    TensorInfo info = file.info(each);
    info.bytes = memory->emplace_back(info.bytes.begin(), info.bytes.end());
    group.tensors.push_back(std::move(info));
  }
  return group;
}

}  // namespace sfumato
