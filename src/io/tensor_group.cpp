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
  auto file = std::make_shared<const SafetensorsFile>(file_of(folder, name));
  TensorGroup group{name, {}, nullptr};
  for (const std::string& each : names) group.tensors.push_back(file->info(each));
  group.memory = std::move(file);
  return group;
}

}  // namespace sfumato
