#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "io/image_bytes.h"
#include "sfumato/core/error.h"
#include "sfumato/io/image_codec.h"

// JPEGs that decoders mend without a word, and pixels against OpenCV's.
namespace sfumato {
namespace {

using ::testing::HasSubstr;
using namespace test;

cv::Mat texture(int rows, int cols, int type) {
  cv::Mat image(rows, cols, type);
  cv::RNG random(3);
  random.fill(image, cv::RNG::NORMAL, 128, 40);
  cv::GaussianBlur(image, image, {5, 5}, 1.0);
  return image;
}

std::string encode(const cv::Mat& image,
                   std::vector<int> options = {cv::IMWRITE_JPEG_QUALITY, 90}) {
  std::vector<unsigned char> bytes;
  EXPECT_TRUE(cv::imencode(".jpg", image, bytes, options));
  return {bytes.begin(), bytes.end()};
}

class DamagedJpeg : public ::testing::Test {
 protected:
  std::string whole_ = encode(texture(128, 128, CV_8UC3));
  /// Where the coded pixels begin and how many bytes they take.
  std::size_t data_ = whole_.find("\xFF\xDA") + 14;
  std::size_t size_ = whole_.size() - 2 - data_;

  static std::string mended(const std::string& bytes) {
    return decode_image(bytes, "cat.jpg", {}).mended;
  }
};

TEST_F(DamagedJpeg, AWholeOneIsNot) {
  EXPECT_EQ(mended(whole_), "");
  EXPECT_EQ(mended(whole_ + std::string(300, '\0') + "EXTRA"), "");
  EXPECT_EQ(mended(whole_ + encode(texture(16, 16, CV_8UC3))), "");  // as cameras append a preview
  EXPECT_EQ(mended(with_exif(whole_, 1)), "");
  for (const auto& options : std::vector<std::vector<int>>{{cv::IMWRITE_JPEG_PROGRESSIVE, 1},
                                                           {cv::IMWRITE_JPEG_RST_INTERVAL, 3},
                                                           {cv::IMWRITE_JPEG_OPTIMIZE, 1}})
    EXPECT_EQ(mended(encode(texture(61, 75, CV_8UC3), options)), "");
}

TEST_F(DamagedJpeg, WhatIsMissingOrChangedIsNoticed) {
  const std::string end = "\xFF\xD9";
  const std::string half = whole_.substr(0, data_ + size_ / 2);
  std::string zeros = whole_, flipped = whole_, lost = whole_;
  std::memset(zeros.data() + data_ + size_ / 3, 0, size_ / 3);
  for (std::size_t at = data_ + size_ / 4; at < data_ + size_; at += 499)
    flipped[at] = static_cast<char>(flipped[at] ^ 0x55);
  lost.erase(data_ + size_ / 2, 1024);
  for (const std::string& damaged : {half + end, zeros, flipped, lost}) {
    EXPECT_NE(mended(damaged), "");
    const std::string message = message_of<DataError>([&] { decode_image(damaged, "cat.jpg"); });
    EXPECT_THAT(message, HasSubstr("'cat.jpg' is damaged"));
  }
  // Of the picture that follows, the end marker is the only one there.
  EXPECT_THAT(message_of<DataError>([&] { decode_image(half + whole_, "cat.jpg"); }),
              HasSubstr("cat.jpg"));
}

TEST_F(DamagedJpeg, LossesThatLibjpegPassesOverAreNoticed) {
  // Codes fall into step again after a few blocks; what betrays the loss is a block that overflows
  // or one block too many or too few. Of 40 places libjpeg alone notices 2, progressive 30.
  for (const auto& [progressive, at_least] : {std::pair{0, 5}, std::pair{1, 33}}) {
    const std::string whole =
        encode(texture(400, 400, CV_8UC3),
               {cv::IMWRITE_JPEG_QUALITY, 90, cv::IMWRITE_JPEG_PROGRESSIVE, progressive});
    ASSERT_EQ(mended(whole), "");
    const std::size_t data = whole.find("\xFF\xDA") + 14;
    int noticed = 0;
    for (std::size_t i = 1; i <= 40; ++i) {
      std::string zeroed = whole;
      std::memset(zeroed.data() + data + i * (whole.size() - data) / 42, 0, 64);
      if (message_of<DataError>([&] { decode_image(zeroed, "cat.jpg"); }) != "no error") ++noticed;
    }
    EXPECT_GE(noticed, at_least) << "progressive: " << progressive;
  }
}

TEST_F(DamagedJpeg, RestartMarkersThatAreGoneAreNoticed) {
  std::string bytes = encode(texture(64, 64, CV_8UC3), {cv::IMWRITE_JPEG_RST_INTERVAL, 2});
  const std::size_t at = bytes.find("\xFF\xD2");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 1] = '\xD5';
  EXPECT_NE(mended(bytes), "");
}

TEST_F(DamagedJpeg, WhatConcernsNoPixelIsNoDamage) {
  std::string version = whole_;
  ASSERT_EQ(version.substr(6, 5), std::string("JFIF\0", 5));
  version[11] = 9;  // a version of JFIF that does not exist
  EXPECT_EQ(mended(version), "");
}

TEST(JpegPixels, AreOpencvsBitForBit) {
  std::vector<std::string> files;
  for (const int type : {CV_8UC1, CV_8UC3})
    for (const cv::Size size : {cv::Size{1, 1}, cv::Size{7, 9}, cv::Size{33, 47}, cv::Size{64, 16}})
      for (const int progressive : {0, 1})
        for (const int quality : {30, 75, 100})
          files.push_back(encode(
              texture(size.height, size.width, type),
              {cv::IMWRITE_JPEG_PROGRESSIVE, progressive, cv::IMWRITE_JPEG_QUALITY, quality}));
  files.push_back(color_jpeg());
  files.push_back(grey_jpeg());
  for (const int orientation : {1, 2, 3, 4, 5, 6, 7, 8})
    files.push_back(with_exif(encode(texture(24, 40, CV_8UC3)), orientation));
  for (const std::string& file : files) {
    const Image ours = decode_image(file, "p");
    cv::Mat theirs = cv::imdecode(std::vector<char>(file.begin(), file.end()), cv::IMREAD_ANYCOLOR);
    if (theirs.channels() == 3) cv::cvtColor(theirs, theirs, cv::COLOR_BGR2RGB);
    ASSERT_EQ(ours.height, theirs.rows);
    ASSERT_EQ(ours.width, theirs.cols);
    ASSERT_EQ(ours.channels, theirs.channels());
    ASSERT_EQ(std::memcmp(ours.pixels.data(), theirs.data, ours.pixels.size()), 0);
  }
}

}  // namespace
}  // namespace sfumato
