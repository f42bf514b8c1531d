#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "image_header.h"
#include "jpeg_decoder.h"
#include "pnm.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/image_codec.h"
#include "tiff.h"
#include "tiff_messages.h"

namespace sfumato {
namespace {

/// Parallelism is one picture per thread; OpenCV's own threads would only fight over the cores. Its
/// log names no file, and errors here do.
void keep_opencv_quiet() {
  [[maybe_unused]] static const bool done = [] {
    cv::setNumThreads(1);
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    return true;
  }();
}

struct Turns {
  std::mutex mutex;
  std::condition_variable given_back;
  std::int64_t taken = 0;
};

Turns& turns() {
  static Turns all;
  return all;
}

[[noreturn]] void fail_to_decode(const std::string& name, ImageFormat format,
                                 const std::string& why) {
  throw DataError(fmt::format("'{}' is a broken {}: {}", name, name_of(format), why));
}

/// A build of OpenCV may lack a format; its writer comes and goes with its reader.
bool has_codec(ImageFormat format) {
  static const bool has_png = cv::haveImageWriter(".png");
  static const bool has_webp = cv::haveImageWriter(".webp");
  static const bool has_tiff = cv::haveImageWriter(".tiff") && can_hear_libtiff();
  if (format == ImageFormat::kPng) return has_png;
  if (format == ImageFormat::kWebp) return has_webp;
  return format != ImageFormat::kTiff || has_tiff;  // BMP needs no library
}

/// Rows of 8 or 16 bits, grey or RGB.
cv::Mat decode_by_opencv(std::string_view bytes, const std::string& name, ImageFormat format) {
  if (!has_codec(format))
    throw DataError(fmt::format(
        "'{0}' is a {1}, and the OpenCV of this build cannot read {1}; install an OpenCV with it, "
        "or save the picture as PNG",
        name, name_of(format)));
  std::string reason = "the decoder refuses it";
  const cv::Mat buffer(1, static_cast<int>(bytes.size()), CV_8UC1, const_cast<char*>(bytes.data()));
  cv::Mat decoded;
  int flags = cv::IMREAD_ANYCOLOR | cv::IMREAD_ANYDEPTH | cv::IMREAD_IGNORE_ORIENTATION;
  // OpenCV takes 24 bits under the oldest header of BMP, of 12 bytes, for grey.
  if (format == ImageFormat::kBmp && bytes[14] == 12) flags |= cv::IMREAD_COLOR;
  try {
    decoded = cv::imdecode(buffer, flags);
  } catch (const cv::Exception& error) {
    reason = error.err;
  }
  if (decoded.empty()) fail_to_decode(name, format, reason);
  if (decoded.depth() != CV_8U && decoded.depth() != CV_16U)
    fail_to_decode(name, format, "its samples have neither 8 nor 16 bits");
  if (decoded.channels() == 3) cv::cvtColor(decoded, decoded, cv::COLOR_BGR2RGB);
  return decoded;
}

cv::Mat decode_tiff(std::string_view bytes, const std::string& name, std::string& mended) {
  const std::string plain = plain_tiff(bytes);
  const TiffMessages messages;
  cv::Mat decoded;
  try {
    decoded = decode_by_opencv(plain, name, ImageFormat::kTiff);
  } catch (const DataError&) {
    if (messages.error().empty()) throw;
  }
  if (!messages.error().empty()) fail_to_decode(name, ImageFormat::kTiff, messages.error());
  mended = messages.mended();
  return decoded;
}

cv::Mat decode_pnm(std::string_view bytes, const std::string& name) {
  const PnmHeader header = read_pnm_header(bytes, name);
  std::vector<std::uint16_t> samples = read_pnm_samples(bytes, header, name);
  const cv::Mat deep(static_cast<int>(header.height), static_cast<int>(header.width),
                     CV_16UC(static_cast<int>(header.channels())), samples.data());
  cv::Mat result;
  deep.convertTo(result, header.is_deep() ? CV_16U : CV_8U);
  return result;
}

/// As EXIF counts: 2, 4, 5 and 7 are mirrored, 5 to 8 lie on a side.
cv::Mat upright(cv::Mat image, int orientation) {
  cv::Mat turned;
  switch (orientation) {
    case 2: cv::flip(image, turned, 1); return turned;
    case 3: cv::flip(image, turned, -1); return turned;
    case 4: cv::flip(image, turned, 0); return turned;
    case 5: cv::transpose(image, turned); return turned;
    case 6: cv::rotate(image, turned, cv::ROTATE_90_CLOCKWISE); return turned;
    case 7:
      cv::transpose(image, turned);
      cv::flip(turned, turned, -1);
      return turned;
    case 8: cv::rotate(image, turned, cv::ROTATE_90_COUNTERCLOCKWISE); return turned;
    default: return image;
  }
}

DeepSamples describe(const cv::Mat& deep) {
  DeepSamples result;
  double low = 0, high = 0;
  cv::minMaxIdx(deep.reshape(1), &low, &high);
  result.min = static_cast<std::int64_t>(low);
  result.max = static_cast<std::int64_t>(high);
  const int side = std::min(deep.rows, deep.cols);
  const int top = (deep.rows - side) / 2, left = (deep.cols - side) / 2;
  Sha256 hash;
  const std::array<std::int32_t, 2> shape = {side, deep.channels()};
  hash.update(shape.data(), sizeof shape);
  for (int y = 0; y < side; ++y)
    hash.update(deep.ptr(top + y, left), static_cast<std::size_t>(side) * deep.elemSize());
  const auto digest = hash.finish();
  std::copy(digest.begin(), digest.end(), result.digest.begin());
  return result;
}

/// 8 bits of 16.
void cut_depth(const cv::Mat& deep, const SampleDepth& depth, std::uint8_t* out) {
  const std::int64_t low = depth.range ? depth.range->first : 0;
  const std::int64_t width = depth.range ? depth.range->second - low : 0;
  const int row_samples = deep.cols * deep.channels();
  for (int y = 0; y < deep.rows; ++y) {
    const auto* row = deep.ptr<std::uint16_t>(y);
    for (int i = 0; i < row_samples; ++i) {
      const std::int64_t value = row[i];
      *out++ = static_cast<std::uint8_t>(
          depth.range
              ? (510 * std::clamp<std::int64_t>(value - low, 0, width) + width) / (2 * width)
              : value >> 8);
    }
  }
}

Image as_image(const cv::Mat& samples, const SampleDepth& depth) {
  Image image{samples.rows, samples.cols, samples.channels(), {}};
  image.pixels.resize(samples.total() * static_cast<std::size_t>(samples.channels()));
  if (samples.depth() == CV_16U) {
    cut_depth(samples, depth, image.pixels.data());
  } else {
    cv::Mat out(samples.rows, samples.cols, samples.type(), image.pixels.data());
    samples.copyTo(out);
  }
  return image;
}

}  // namespace

PixelTurn::PixelTurn(std::int64_t pixels) : pixels_(pixels) {
  constexpr std::int64_t kMaxAtOnce = 256'000'000;
  Turns& all = turns();
  std::unique_lock lock(all.mutex);
  all.given_back.wait(lock, [&] { return all.taken == 0 || all.taken + pixels <= kMaxAtOnce; });
  all.taken += pixels;
}

PixelTurn::~PixelTurn() {
  if (pixels_ == 0) return;
  Turns& all = turns();
  {
    const std::lock_guard lock(all.mutex);
    all.taken -= pixels_;
  }
  all.given_back.notify_all();
}

DecodedImage decode_image(std::string_view bytes, const std::string& name,
                          const DecodeOptions& options) {
  keep_opencv_quiet();
  constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;
  if (bytes.size() > kMaxFileBytes)
    throw DataError(
        fmt::format("'{}' has {} bytes; at most {} are read", name, bytes.size(), kMaxFileBytes));
  const ImageHeader header = check_image_container(bytes, name);
  if (header.height > options.max_pixels / header.width)
    throw DataError(
        fmt::format("'{}' is {}x{} pixels; at most {} pixels are decoded (data.max_megapixels)",
                    name, header.width, header.height, options.max_pixels));
  DecodedImage result;
  result.turn = PixelTurn(header.height * header.width);
  cv::Mat samples;
  if (header.format == ImageFormat::kJpeg) {
    DecodedJpeg jpeg = decode_jpeg(bytes, name, options.max_pixels);
    result.mended = std::move(jpeg.mended);
    result.image = std::move(jpeg.image);
    if (header.orientation == 1) return result;
    const cv::Mat lying(static_cast<int>(result.image.height), static_cast<int>(result.image.width),
                        result.image.channels == 1 ? CV_8UC1 : CV_8UC3, result.image.pixels.data());
    samples = upright(lying, header.orientation);
  } else {
    samples = header.format == ImageFormat::kPnm    ? decode_pnm(bytes, name)
              : header.format == ImageFormat::kTiff ? decode_tiff(bytes, name, result.mended)
                                                    : decode_by_opencv(bytes, name, header.format);
    samples = upright(samples, header.orientation);
  }
  if (samples.depth() == CV_16U) result.deep = describe(samples);
  result.image = as_image(samples, options.depth);
  return result;
}

Image decode_image(std::string_view bytes, const std::string& name) {
  DecodedImage decoded = decode_image(bytes, name, {});
  if (!decoded.mended.empty())
    throw DataError(fmt::format("'{}' is damaged: {}", name, decoded.mended));
  return std::move(decoded.image);
}

}  // namespace sfumato
