#include "generate/gan/sample_script.h"

namespace sfumato {

std::string_view gan_sample_script() {
  return
#include "gan_sample_script.inc"  // src/generate/gan/sample.py as a literal, made by CMake
      ;
}

}  // namespace sfumato
