#include "jpeg_decoder.h"

#include <fmt/format.h>

// libjpeg's headers use FILE and size_t without including what defines them.
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#include <jerror.h>

#include "jpeg_scan.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// libjpeg's error manager, which it sees as its first member.
struct Messages {
  jpeg_error_mgr base;
  std::jmp_buf escape;
  char error[JMSG_LENGTH_MAX];
  char mended[JMSG_LENGTH_MAX];
};

Messages& messages_of(j_common_ptr info) { return *reinterpret_cast<Messages*>(info->err); }

[[noreturn]] void on_jpeg_error(j_common_ptr info) {
  Messages& messages = messages_of(info);
  messages.base.format_message(info, messages.error);
  std::longjmp(messages.escape, 1);
}

/// Warnings about pixels, as against those about a version or a profile.
bool is_damage(int code) {
  return code != JWRN_JFIF_MAJOR && code != JWRN_BOGUS_ICC && code != JWRN_ADOBE_XFORM;
}

void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;  // not a warning
  Messages& messages = messages_of(info);
  ++messages.base.num_warnings;
  if (is_damage(messages.base.msg_code) && messages.mended[0] == '\0')
    messages.base.format_message(info, messages.mended);
}

/// libjpeg leaves by a jump: no function between setjmp and it may hold an object with a
/// destructor.
class Decompressor {
 public:
  explicit Decompressor(std::string_view bytes) : bytes_(bytes) {
    info_.err = ::jpeg_std_error(&messages_.base);
    messages_.base.error_exit = on_jpeg_error;
    messages_.base.emit_message = on_message;
  }
  ~Decompressor() { ::jpeg_destroy_decompress(&info_); }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  /// False: error() says why.
  bool read_header() {
    if (setjmp(messages_.escape) != 0) return false;
    jpeg_create_decompress(&info_);
    ::jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
    ::jpeg_read_header(&info_, TRUE);
    if (info_.num_components == 4)
      info_.out_color_space = JCS_CMYK;
    else
      info_.out_color_space = info_.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    return true;
  }

  /// Rows of height() x width() x channels() bytes; `cmyk` has room for one row of 4 channels.
  bool read_pixels(std::uint8_t* pixels, std::uint8_t* cmyk) {
    if (setjmp(messages_.escape) != 0) return note_late_error();
    ::jpeg_start_decompress(&info_);
    const std::int64_t row_bytes = width() * channels();
    while (info_.output_scanline < info_.output_height) {
      std::uint8_t* out = pixels + row_bytes * info_.output_scanline;
      JSAMPROW row = is_cmyk() ? cmyk : out;
      ::jpeg_read_scanlines(&info_, &row, 1);
      if (is_cmyk()) cmyk_to_rgb(cmyk, out);
    }
    ::jpeg_finish_decompress(&info_);  // looks at what follows the last row, too
    return true;
  }

  std::int64_t height() const { return info_.image_height; }
  std::int64_t width() const { return info_.image_width; }
  std::int64_t channels() const { return info_.num_components == 1 ? 1 : 3; }
  bool is_cmyk() const { return info_.num_components == 4; }
  const char* error() const { return messages_.error; }
  const char* mended() const { return messages_.mended; }

 private:
  /// An error behind the last row leaves a picture, if a doubtful one.
  bool note_late_error() {
    if (info_.output_height == 0 || info_.output_scanline < info_.output_height) return false;
    if (messages_.mended[0] == '\0')
      std::memcpy(messages_.mended, messages_.error, sizeof messages_.mended);
    return true;
  }

  /// Inks are stored inverted, as Adobe does; the arithmetic is OpenCV's.
  void cmyk_to_rgb(const std::uint8_t* cmyk, std::uint8_t* rgb) const {
    for (std::int64_t x = 0; x < width(); ++x, cmyk += 4, rgb += 3)
      for (int c = 0; c < 3; ++c)
        rgb[c] = static_cast<std::uint8_t>(cmyk[3] - ((255 - cmyk[c]) * cmyk[3] >> 8));
  }

  std::string_view bytes_;
  jpeg_decompress_struct info_{};
  Messages messages_{};
};

}  // namespace

DecodedJpeg decode_jpeg(std::string_view bytes, const std::string& name, std::int64_t max_pixels) {
  Decompressor jpeg(bytes);
  const auto fail = [&](const std::string& why) {
    throw DataError(fmt::format("'{}' is a broken JPEG: {}", name, why));
  };
  if (!jpeg.read_header()) fail(jpeg.error());
  if (jpeg.height() < 1 || jpeg.width() < 1 || jpeg.height() > max_pixels / jpeg.width())
    fail("it states several sizes");
  DecodedJpeg result;
  result.image = {jpeg.height(), jpeg.width(), jpeg.channels(), {}};
  result.image.pixels.resize(
      static_cast<std::size_t>(jpeg.height() * jpeg.width() * jpeg.channels()));
  std::vector<std::uint8_t> cmyk;
  if (jpeg.is_cmyk()) cmyk.resize(static_cast<std::size_t>(4 * jpeg.width()));
  if (!jpeg.read_pixels(result.image.pixels.data(), cmyk.data())) fail(jpeg.error());
  result.mended = jpeg.mended();
  if (result.mended.empty()) result.mended = check_jpeg_scans(bytes);
  return result;
}

}  // namespace sfumato
