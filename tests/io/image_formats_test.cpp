#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include "io/image_bytes.h"
#include "sfumato/core/error.h"
#include "sfumato/io/image_codec.h"

// Formats other than PNG and JPEG. The files in hexadecimal were written by Pillow.
namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using namespace test;

std::string data_error(const std::string& bytes) {
  return message_of<DataError>([&] { decode_image(bytes, "cat.any"); });
}

/// Pixels of 3 x 2: a row of dark colours above red, green, blue.
const std::vector<int> kSix = {10, 20, 30, 40, 50, 60, 70, 80, 90, 200, 0, 0, 0, 210, 0, 0, 0, 220};

std::string rgba_webp_on_its_side() {
  return from_hex(
      "524946468000000057454250565038580a000000180000000200000100005650384c400000002f024000102f"
      "40986d3488bd8770fe1c472710209488512f8b30db68247d9d3fd1c1100850ecea5de63945c07fd61d662949"
      "28641b010edd2b704a17d1ff7807455849461a0000004d4d002a000000080001011200030000000100060000"
      "00000000");
}

std::string rgba_tiff() {
  return from_hex(
      "49492a002400000080028281e7f8a0643c40118a05a00320000000801a50d87b71ff01000b00000103000100"
      "0000030000000101030001000000020000000201030004000000ae0000000301030001000000050000000601"
      "0300010000000200000011010400010000000800000015010300010000000400000016010300010000000200"
      "000017010400010000001b0000001c0103000100000001000000520103000100000002000000000000000800"
      "080008000800");
}

/// 16 bits, lying on its side.
std::string deep_tiff() {
  return from_hex(
      "49492a00080000000a0000010400010000000300000001010400010000000200000002010300010000001000"
      "0000030103000100000001000000060103000100000001000000110104000100000086000000120103000100"
      "00000800000016010400010000000200000017010400010000000c0000001c01030001000000010000000000"
      "00000000e803d007ff0f409cffff");
}

std::string deflated_tiff() {
  return from_hex(
      "49492a0054000000789c014000bfff0004080c1014181c2024282c3034383c4044484c5054585c6064686c70"
      "74787c8084888c9094989ca0a4a8acb0b4b8bcc0c4c8ccd0d4d8dce0e4e8ecf0f4f8fcaade1f810009000001"
      "0300010000000800000001010300010000000800000002010300010000000800000003010300010000000800"
      "0000060103000100000001000000110104000100000008000000160103000100000008000000170104000100"
      "00004b0000001c010300010000000100000000000000");
}

std::string palette_bmp() {
  return from_hex(
      "424d56000000000000004e000000280000000300000002000000010008000000000008000000c40e0000c40e"
      "0000060000000600000000d200005a5046003c3228001e140a000000c800dc0000000400050003020100");
}

std::string encoded(const char* extension, const cv::Mat& image,
                    const std::vector<int>& options = {}) {
  std::vector<unsigned char> bytes;
  EXPECT_TRUE(cv::imencode(extension, image, bytes, options));
  return {bytes.begin(), bytes.end()};
}

cv::Mat noise(int rows, int cols, int type) {
  cv::Mat image(rows, cols, type);
  cv::RNG random(7);
  random.fill(image, cv::RNG::UNIFORM, 0, CV_MAT_DEPTH(type) == CV_16U ? 65536 : 256);
  return image;
}

TEST(ImageFormats, WebpComesOutUprightWithoutItsAlpha) {
  const Image image = decode_image(rgba_webp_on_its_side(), "p");
  EXPECT_EQ(image.height, 3);
  EXPECT_EQ(image.width, 2);
  // Orientation 6: what lies below comes to the left.
  EXPECT_THAT(image.pixels,
              ElementsAre(200, 0, 0, 10, 20, 30, 0, 210, 0, 40, 50, 60, 0, 0, 220, 70, 80, 90));
}

TEST(ImageFormats, TiffKeepsColoursUnderItsAlpha) {
  const Image image = decode_image(rgba_tiff(), "p");
  EXPECT_EQ(image.height, 2);
  EXPECT_THAT(image.pixels, ElementsAreArray(kSix));
}

TEST(ImageFormats, BmpExpandsItsPalette) {
  EXPECT_THAT(decode_image(palette_bmp(), "p").pixels, ElementsAreArray(kSix));
}

TEST(ImageFormats, OldestBmpHeader) {
  // 2 x 1 pixels of 24 bits, blue first, rows padded to 4 bytes, under a header of 12 bytes.
  const std::string packed = std::string("BM") + std::string("\x22\0\0\0\0\0\0\0\x1a\0\0\0", 12) +
                             std::string("\x0c\0\0\0\x02\0\x01\0\x01\0\x18\0", 12) +
                             std::string("\x1e\x14\x0a\x3c\x32\x28\0\0", 8);
  EXPECT_THAT(decode_image(packed, "p").pixels, ElementsAre(10, 20, 30, 40, 50, 60));
}

TEST(ImageFormats, PnmOfEveryKindIsScaledByItsLargestValue) {
  EXPECT_THAT(decode_image("P1 # rows\n3 2\n010\n1 0 1\n", "p").pixels,
              ElementsAre(255, 0, 255, 0, 255, 0));
  EXPECT_THAT(decode_image("P2\n# made by hand\n3 1\n15\n0 5 15\n", "p").pixels,
              ElementsAre(0, 85, 255));
  EXPECT_THAT(decode_image("P3 1 1 255 1 2 3", "p").pixels, ElementsAre(1, 2, 3));
  EXPECT_THAT(decode_image(std::string("P4 10 1\n\xA0\x40", 10), "p").pixels,
              ElementsAre(0, 255, 0, 255, 255, 255, 255, 255, 255, 0));
  EXPECT_THAT(decode_image(std::string("P5 2 1 100\n\x32\x64", 13), "p").pixels,
              ElementsAre(128, 255));
  EXPECT_THAT(decode_image("P6 1 1 255\nabc", "p").pixels, ElementsAre('a', 'b', 'c'));
  // 12 bits: 4095 is white, whatever the number of bytes.
  const DecodedImage deep = decode_image(std::string("P5 2 1 4095\n\x08\0\x0f\xff", 16), "p", {});
  EXPECT_THAT(deep.image.pixels, ElementsAre(128, 255));
  ASSERT_TRUE(deep.deep);
  EXPECT_EQ(deep.deep->max, 65535);
}

TEST(ImageFormats, LosslessOnesRoundTrip) {
  const cv::Mat color = noise(13, 21, CV_8UC3), grey = noise(13, 21, CV_8UC1);
  const std::vector<std::string> files = {encoded(".webp", color, {cv::IMWRITE_WEBP_QUALITY, 101}),
                                          encoded(".tiff", color), encoded(".bmp", color),
                                          encoded(".ppm", color)};
  for (const std::string& file : files) {
    const Image image = decode_image(file, "p");
    ASSERT_EQ(image.height, 13);
    ASSERT_EQ(image.width, 21);
    ASSERT_EQ(image.channels, 3);
    for (int i = 0; i < 13 * 21; ++i)
      for (int c = 0; c < 3; ++c)
        ASSERT_EQ(image.pixels[3 * i + c], color.at<cv::Vec3b>(i)[2 - c]) << file.substr(0, 4);
  }
  for (const char* extension : {".tiff", ".bmp", ".pgm"}) {
    const Image image = decode_image(encoded(extension, grey), "p");
    EXPECT_EQ(image.channels, 1);
    EXPECT_TRUE(std::equal(image.pixels.begin(), image.pixels.end(), grey.data)) << extension;
  }
}

TEST(ImageFormats, SixteenBitsKeepTheUpperEightUnlessARangeIsGiven) {
  const DecodedImage full = decode_image(deep_tiff(), "p", {});
  EXPECT_EQ(full.image.height, 3);
  // Orientation 8: what lies on the right comes to the top.
  EXPECT_THAT(full.image.pixels, ElementsAre(7, 255, 3, 156, 0, 15));
  ASSERT_TRUE(full.deep);
  EXPECT_EQ(full.deep->min, 0);
  EXPECT_EQ(full.deep->max, 65535);
  DecodeOptions options;
  options.depth.range = {1000, 4000};
  // round(255 (v - 1000) / 3000), cut off outside.
  EXPECT_THAT(decode_image(deep_tiff(), "p", options).image.pixels,
              ElementsAre(85, 255, 0, 255, 0, 255));
  const cv::Mat color = noise(5, 8, CV_16UC3);
  for (const char* extension : {".png", ".tiff", ".ppm"}) {
    const DecodedImage deep = decode_image(encoded(extension, color), "p", {});
    ASSERT_TRUE(deep.deep) << extension;
    for (int i = 0; i < 40; ++i)
      for (int c = 0; c < 3; ++c)
        ASSERT_EQ(deep.image.pixels[3 * i + c], color.at<cv::Vec3w>(i)[2 - c] >> 8) << extension;
  }
  EXPECT_FALSE(decode_image(rgba_tiff(), "p", {}).deep);
}

TEST(ImageFormats, DigestOfDeepSamplesIsThatOfTheMiddle) {
  cv::Mat image = noise(6, 10, CV_16UC1);
  const auto digest = [&] { return decode_image(encoded(".png", image), "p", {}).deep->digest; };
  const auto before = digest();
  image.at<std::uint16_t>(3, 0) ^= 1;  // cropped away
  EXPECT_EQ(digest(), before);
  image.at<std::uint16_t>(3, 5) ^= 1;  // the lowest bit
  EXPECT_NE(digest(), before);
}

TEST(ImageFormats, EveryTruncationIsAnErrorThatNamesTheFile) {
  const cv::Mat color = noise(6, 5, CV_8UC3);
  for (const std::string& whole :
       {rgba_webp_on_its_side(), rgba_tiff(), deep_tiff(), deflated_tiff(), palette_bmp(),
        encoded(".webp", color), encoded(".tiff", color), encoded(".ppm", color),
        std::string("P2 2 2 255 1 2 3 4")}) {
    EXPECT_EQ(data_error(whole), "no error");
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const std::string cut = whole.substr(0, size);
      const std::string message = data_error(cut);
      // What lies behind the last pixel (padding, the end of a folder) may be missing.
      if (message == "no error")
        EXPECT_EQ(decode_image(cut, "p").pixels, decode_image(whole, "p").pixels) << size;
      else
        EXPECT_THAT(message, HasSubstr("cat.any"));
    }
  }
}

TEST(ImageFormats, DamagedTiffsAreErrorsThoughOpencvGivesAPicture) {
  std::string deflated = deflated_tiff();
  deflated[40] = static_cast<char>(deflated[40] ^ 1);
  EXPECT_THAT(data_error(deflated), HasSubstr("strip 0 is damaged"));
  std::string lzw = rgba_tiff();
  for (int i = 20; i < 28; ++i) lzw[i] = static_cast<char>(lzw[i] ^ 0x5A);
  cv::Mat picture = cv::imdecode(std::vector<char>(lzw.begin(), lzw.end()), cv::IMREAD_COLOR);
  EXPECT_FALSE(picture.empty());
  EXPECT_THAT(data_error(lzw), HasSubstr("broken TIFF"));
}

TEST(ImageFormats, WhatIsNotReadIsNamed) {
  EXPECT_THAT(data_error(encoded(".tiff", noise(4, 4, CV_32FC1))), HasSubstr("32-bit samples"));
  EXPECT_THAT(data_error("GIF89a, which is no PNG"), HasSubstr("is a GIF"));
  EXPECT_THAT(data_error(std::string("\0\0\0\x1c"
                                     "ftypavif",
                                     12)),
              HasSubstr("AVIF"));
  EXPECT_THAT(data_error("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("git-lfs"));
  // A copy of the only folder behind the file, to which the first one leads.
  std::string pages = deep_tiff();
  ASSERT_EQ(pages.substr(130, 4), std::string(4, '\0'));
  const std::string folder = pages.substr(8, 126);
  pages[130] = static_cast<char>(pages.size());
  pages += folder;
  EXPECT_THAT(data_error(pages), HasSubstr("several pages"));
  std::string animated = rgba_webp_on_its_side();
  animated[20] = static_cast<char>(animated[20] | 2);
  EXPECT_THAT(data_error(animated), HasSubstr("animated WebP"));
}

TEST(ImageFormats, HostileHeadersTakeNoMemory) {
  std::string webp = rgba_webp_on_its_side();
  webp.replace(24, 6, "\xFF\xFF\xFF\xFF\xFF\xFF");
  EXPECT_THAT(data_error(webp), HasSubstr("at most 64000000"));
  std::string bmp = palette_bmp();
  bmp.replace(18, 8, std::string("\xFF\xFF\xFF\x7F\xFF\xFF\xFF\x7F", 8));
  EXPECT_THAT(data_error(bmp), HasSubstr("cat.any"));
  bmp.replace(22, 4, std::string("\0\0\0\x80", 4));
  EXPECT_THAT(data_error(bmp), HasSubstr("cat.any"));
  EXPECT_THAT(data_error("P5 16000000 16000000 255\nabc"), HasSubstr("cat.any"));
  std::string tiff = deep_tiff();
  tiff.replace(18, 4, "\xFF\xFF\xFF\xFF");
  tiff.replace(30, 4, "\xFF\xFF\xFF\xFF");
  EXPECT_THAT(data_error(tiff), HasSubstr("at most 64000000"));
  // Every byte of a header at its largest and smallest.
  for (const std::string& whole :
       {rgba_webp_on_its_side(), rgba_tiff(), deep_tiff(), deflated_tiff(), palette_bmp()}) {
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (const char value : {'\0', '\x7F', '\xFF'}) {
        std::string spoilt = whole;
        spoilt[at] = value;
        EXPECT_NO_FATAL_FAILURE(data_error(spoilt));
      }
    }
  }
}

TEST(ImageFormats, TheLimitOfPixelsIsASetting) {
  DecodeOptions options;
  options.max_pixels = 5;
  EXPECT_THAT(message_of<DataError>([&] { decode_image(palette_bmp(), "p", options); }),
              HasSubstr("data.max_megapixels"));
  options.max_pixels = 6;
  EXPECT_EQ(decode_image(palette_bmp(), "p", options).image.width, 3);
}

}  // namespace
}  // namespace sfumato
