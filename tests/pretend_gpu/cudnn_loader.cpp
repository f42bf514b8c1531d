#include "pretend_gpu/cudnn_loader.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace pretend_gpu {
namespace {

std::string folder_of_this_library() {
  Dl_info info = {};
  if (::dladdr(reinterpret_cast<const void*>(&load_cudnn), &info) == 0) return "";
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

}  // namespace

void load_cudnn() {
  static bool loaded = false;
  if (loaded || ::dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY) == nullptr) return;
  loaded = true;
  const std::string path = folder_of_this_library() + "libpretend_cudnn.so";
  if (::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return;
  std::fprintf(stderr, "pretend_gpu: no cuDNN: %s\n", ::dlerror());
  std::_Exit(2);
}

}  // namespace pretend_gpu
