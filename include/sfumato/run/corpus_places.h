#pragma once

namespace sfumato {

/// The picture of pictures, relative to a corpus. `datasets` passes over folders that begin with
/// two underscores; elsewhere its imagefolder takes the sheet for one of the images.
inline constexpr const char* kContactSheet = "__preview__/contact_sheet.png";

}  // namespace sfumato
