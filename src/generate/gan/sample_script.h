#pragma once
#include <string_view>

namespace sfumato {

/// sample.py of a release, which lies beside the folder generator/: it draws with PyTorch alone
/// what `sfumato sample` draws, to one grey level. Its source is the file of this name in this
/// folder.
std::string_view gan_sample_script();

}  // namespace sfumato
