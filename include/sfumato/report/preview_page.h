#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sfumato {

/// What the page beside the previews of a run shows.
struct PreviewPage {
  std::int64_t step = 0, end = 0;  ///< steps done, and those when the run ends
  std::string epsilon;             ///< spent so far; empty without privacy
  std::vector<std::pair<std::int64_t, std::string>> pictures;  ///< step and file, newest first
};

/// HTML that reloads itself every 30 seconds and shows the files beside it: corners of at most
/// twelve in a strip along training, then all of them, the newest first. No scripts, nothing from
/// elsewhere.
std::string preview_page(const PreviewPage& page);

}  // namespace sfumato
