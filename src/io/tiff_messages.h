#pragma once
#include <string>

namespace sfumato {

/// Hears what libtiff says of the picture that this thread decodes through OpenCV. It must be
/// heard: OpenCV takes pictures of 8 bits from libtiff's RGBA interface, which reports damaged
/// strips by a message alone and leaves them black.
class TiffMessages {
 public:
  TiffMessages();
  ~TiffMessages();
  TiffMessages(const TiffMessages&) = delete;
  TiffMessages& operator=(const TiffMessages&) = delete;

  /// The first error; empty: none.
  std::string error() const;
  /// The first warning of a decompressor that mends; empty: none.
  std::string mended() const;
};

/// Whether the libtiff of this process can be heard: false where OpenCV hides one of its own.
bool can_hear_libtiff();

}  // namespace sfumato
