#include "sfumato/io/image_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// Parallelism is one picture per thread; OpenCV's own threads would only fight over the cores.
void keep_opencv_single_threaded() {
  [[maybe_unused]] static const bool done = [] {
    cv::setNumThreads(1);
    return true;
  }();
}

/// View of `image` as a matrix; no copy.
cv::Mat as_matrix(const Image& image) {
  if ((image.channels != 1 && image.channels != 3) || image.height <= 0 || image.width <= 0 ||
      std::ssize(image.pixels) != image.height * image.width * image.channels)
    throw DataError(fmt::format("not a picture: {}x{} with {} channels and {} bytes", image.width,
                                image.height, image.channels, image.pixels.size()));
  return cv::Mat(static_cast<int>(image.height), static_cast<int>(image.width),
                 image.channels == 1 ? CV_8UC1 : CV_8UC3,
                 const_cast<std::uint8_t*>(image.pixels.data()));
}

Image with_size(std::int64_t height, std::int64_t width, std::int64_t channels) {
  Image image{height, width, channels, {}};
  image.pixels.resize(static_cast<std::size_t>(height * width * channels));
  return image;
}

}  // namespace

std::string encode_png(const Image& image) {
  keep_opencv_single_threaded();
  cv::Mat matrix = as_matrix(image);
  cv::Mat bgr = matrix;
  if (image.channels == 3) cv::cvtColor(matrix, bgr = cv::Mat(), cv::COLOR_RGB2BGR);
  std::vector<unsigned char> bytes;
  if (!cv::imencode(".png", bgr, bytes)) throw DataError("a picture cannot be encoded as PNG");
  return {bytes.begin(), bytes.end()};
}

Image center_crop_resize(const Image& image, std::int64_t size) {
  keep_opencv_single_threaded();
  if (size <= 0) throw UsageError(fmt::format("an image size of {} is not possible", size));
  const cv::Mat full = as_matrix(image);
  if (image.height == size && image.width == size) return image;
  const int side = std::min(full.rows, full.cols);
  const cv::Mat square = full(cv::Rect((full.cols - side) / 2, (full.rows - side) / 2, side, side));
  Image result = with_size(size, size, image.channels);
  cv::Mat out = as_matrix(result);
  if (side == size)
    square.copyTo(out);
  else
    cv::resize(square, out, out.size(), 0, 0, side > size ? cv::INTER_AREA : cv::INTER_CUBIC);
  return result;
}

Image to_channels(Image image, std::int64_t channels) {
  keep_opencv_single_threaded();
  if (channels != 1 && channels != 3)
    throw UsageError(
        fmt::format("{} channels asked for; a picture has 1 (grey) or 3 (RGB)", channels));
  if (image.channels == channels) return image;
  Image result = with_size(image.height, image.width, channels);
  cv::Mat out = as_matrix(result);
  cv::cvtColor(as_matrix(image), out, channels == 1 ? cv::COLOR_RGB2GRAY : cv::COLOR_GRAY2RGB);
  return result;
}

bool has_image_extension(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  std::string extension(name.substr(dot + 1));
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::array<std::string_view, 14> kExtensions = {"png",  "jpg", "jpeg", "jpe", "jfif",
                                                            "webp", "bmp", "dib",  "tif", "tiff",
                                                            "pbm",  "pgm", "ppm",  "pnm"};
  return std::ranges::find(kExtensions, extension) != kExtensions.end();
}

}  // namespace sfumato
