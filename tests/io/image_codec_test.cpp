#include "sfumato/io/image_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "io/image_bytes.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

std::string png_error(const std::string& bytes) {
  return message_of<DataError>([&] { decode_image(bytes, "cat.png"); });
}

std::vector<int> pixel(const Image& image, std::int64_t y, std::int64_t x) {
  const auto* p = image.pixels.data() + (y * image.width + x) * image.channels;
  return {p, p + image.channels};
}

void expect_near(const Image& image, std::int64_t y, std::int64_t x, std::vector<int> expected) {
  const std::vector<int> actual = pixel(image, y, x);
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t c = 0; c < expected.size(); ++c)
    EXPECT_NEAR(actual[c], expected[c], 12) << "at row " << y << ", column " << x;
}

TEST(DecodeImage, RgbPngKeepsOrderOfChannelsAndRows) {
  const Image image = decode_image(make_png(2, 2, 8, 2, {"abcdef", "ghijkl"}), "p");
  EXPECT_EQ(image.height, 2);
  EXPECT_EQ(image.width, 2);
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(std::string(image.pixels.begin(), image.pixels.end()), "abcdefghijkl");
}

TEST(DecodeImage, GreyPngStaysGrey) {
  const Image image = decode_image(make_png(3, 2, 8, 0, {"abc", "def"}), "p");
  EXPECT_EQ(image.channels, 1);
  EXPECT_EQ(std::string(image.pixels.begin(), image.pixels.end()), "abcdef");
}

TEST(DecodeImage, OtherPngKinds) {
  // 16 bits: the high byte counts. Alpha: dropped. Palette: expanded. One bit: black and white.
  const Image deep =
      decode_image(make_png(1, 1, 16, 2, {std::string("\x10\0\x20\0\x30\0", 6)}), "p");
  EXPECT_THAT(pixel(deep, 0, 0), ElementsAre(0x10, 0x20, 0x30));
  const Image alpha = decode_image(make_png(1, 1, 8, 6, {"abc\x40"}), "p");
  EXPECT_THAT(pixel(alpha, 0, 0), ElementsAre('a', 'b', 'c'));
  const std::string palette = png_chunk("PLTE", "xyzuvw");
  const Image indexed =
      decode_image(make_png(2, 1, 8, 3, {std::string("\x01\x00", 2)}, palette), "p");
  EXPECT_THAT(pixel(indexed, 0, 0), ElementsAre('u', 'v', 'w'));
  EXPECT_THAT(pixel(indexed, 0, 1), ElementsAre('x', 'y', 'z'));
  const Image bits = decode_image(make_png(4, 1, 1, 0, {"\x50"}), "p");
  EXPECT_THAT(bits.pixels, ElementsAre(0, 255, 0, 255));
}

TEST(DecodeImage, Jpeg) {
  const Image color = decode_image(color_jpeg(), "p");
  EXPECT_EQ(color.height, 16);
  EXPECT_EQ(color.width, 32);
  expect_near(color, 2, 4, {255, 0, 0});
  expect_near(color, 2, 28, {0, 0, 255});
  expect_near(color, 13, 4, {0, 255, 0});
  expect_near(color, 13, 28, {255, 255, 255});
  const Image grey = decode_image(grey_jpeg(), "p");
  EXPECT_EQ(grey.channels, 1);
  expect_near(grey, 8, 4, {40});
  expect_near(grey, 8, 28, {200});
}

TEST(DecodeImage, ExifOrientationIsAppliedToPixels) {
  // 6: the camera was turned, rotate by 90 degrees clockwise; green (bottom left) comes to the top
  // left, red (top left) to the top right.
  const Image turned = decode_image(with_exif(color_jpeg(), 6), "p");
  EXPECT_EQ(turned.height, 32);
  EXPECT_EQ(turned.width, 16);
  expect_near(turned, 4, 2, {0, 255, 0});
  expect_near(turned, 4, 13, {255, 0, 0});
  expect_near(turned, 28, 2, {255, 255, 255});
  const Image half = decode_image(with_exif(color_jpeg(), 3), "p");
  expect_near(half, 2, 4, {255, 255, 255});
  EXPECT_EQ(decode_image(with_exif(color_jpeg(), 1), "p").pixels,
            decode_image(color_jpeg(), "p").pixels);
}

TEST(DecodeImage, MetadataDoesNotSurvive) {
  const std::string text = png_chunk("tEXt", std::string("Comment\0secret", 14)) +
                           png_chunk("eXIf", exif_block(1)) +
                           png_chunk("tIME", std::string(7, '\1'));
  const std::string marked = make_png(2, 1, 8, 2, {"abcdef"}, text);
  const std::string again = encode_png(decode_image(marked, "p"));
  EXPECT_EQ(again, encode_png(decode_image(make_png(2, 1, 8, 2, {"abcdef"}), "p")));
  for (const char* trace : {"secret", "CAM", "tEXt", "eXIf", "tIME"})
    EXPECT_EQ(again.find(trace), std::string::npos) << trace;
  const std::string jpeg = encode_png(decode_image(with_exif(color_jpeg(), 6), "p"));
  EXPECT_EQ(jpeg.find("CAM"), std::string::npos);
  EXPECT_EQ(jpeg.find("Exif"), std::string::npos);
}

TEST(DecodeImage, EveryTruncationIsAnErrorThatNamesTheFile) {
  for (const std::string& whole : {make_png(9, 9, 8, 0, std::vector<std::string>(9, "abcdefghi")),
                                   color_jpeg(), with_exif(grey_jpeg(), 6)}) {
    for (std::size_t size = 0; size < whole.size(); ++size)
      EXPECT_THAT(png_error(whole.substr(0, size)), HasSubstr("cat.png")) << size;
    EXPECT_EQ(png_error(whole), "no error");
  }
}

TEST(DecodeImage, BrokenPng) {
  const std::string good = make_png(4, 4, 8, 0, std::vector<std::string>(4, "abcd"));
  std::string flipped = good;
  flipped[45] = static_cast<char>(flipped[45] ^ 1);
  EXPECT_THAT(png_error(flipped), HasSubstr("broken PNG"));
  EXPECT_THAT(png_error(flipped), HasSubstr("checksum"));
  // Checksums are right, but there are fewer rows than the header says.
  EXPECT_THAT(png_error(make_png(4, 9, 8, 0, std::vector<std::string>(4, "abcd"))),
              HasSubstr("broken PNG"));
  EXPECT_THAT(png_error(make_png(4, 0, 8, 0, {})), HasSubstr("4x0"));
  EXPECT_THAT(png_error("GIF89a, which is no PNG"), HasSubstr("is a GIF"));
  EXPECT_THAT(png_error(""), HasSubstr("empty"));
}

TEST(DecodeImage, RefusesBombsFromTheHeader) {
  EXPECT_THAT(png_error(make_png(60000, 60000, 8, 0, {"ab"})), HasSubstr("at most 64000000"));
  EXPECT_THAT(png_error(make_png(0x7FFFFFFF, 0x7FFFFFFF, 8, 0, {"ab"})),
              HasSubstr("at most 64000000"));
}

TEST(EncodePng, RoundTrips) {
  for (const std::int64_t channels : {1, 3}) {
    Image image{5, 7, channels, {}};
    for (std::int64_t i = 0; i < 35 * channels; ++i)
      image.pixels.push_back(static_cast<std::uint8_t>(i * 37));
    const Image back = decode_image(encode_png(image), "p");
    EXPECT_EQ(back.height, 5);
    EXPECT_EQ(back.width, 7);
    EXPECT_EQ(back.channels, channels);
    EXPECT_EQ(back.pixels, image.pixels);
  }
  EXPECT_THROW(encode_png(Image{2, 2, 1, {1, 2, 3}}), DataError);
}

TEST(CenterCropResize, CropsTheMiddle) {
  Image image{2, 5, 1, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}};
  EXPECT_THAT(center_crop_resize(image, 2).pixels, ElementsAre(2, 3, 7, 8));
  Image tall{4, 1, 1, {1, 2, 3, 4}};
  EXPECT_THAT(center_crop_resize(tall, 1).pixels, ElementsAre(2));
}

TEST(CenterCropResize, ShrinksByBoxAverage) {
  Image image{4, 4, 1, {0, 4, 8, 12, 4, 8, 12, 16, 100, 100, 200, 200, 100, 100, 200, 200}};
  EXPECT_THAT(center_crop_resize(image, 2).pixels, ElementsAre(4, 12, 100, 200));
}

TEST(CenterCropResize, EnlargesByCubicInterpolation) {
  // Keys' kernel with a = -0.75 (OpenCV's), borders repeated: brute force in one dimension.
  const std::vector<double> row = {10, 200, 50, 120};
  Image image{4, 4, 1, {}};
  for (int y = 0; y < 4; ++y)
    for (const double v : row) image.pixels.push_back(static_cast<std::uint8_t>(v));
  const auto kernel = [](double t) {
    const double a = -0.75, x = std::abs(t);
    if (x < 1) return (a + 2) * x * x * x - (a + 3) * x * x + 1;
    return x < 2 ? a * (x * x * x - 5 * x * x + 8 * x - 4) : 0.0;
  };
  const Image large = center_crop_resize(image, 8);
  for (int x = 0; x < 8; ++x) {
    const double at = (x + 0.5) / 2 - 0.5;
    double value = 0;
    for (int i = -3; i < 8; ++i) value += row[std::clamp(i, 0, 3)] * kernel(at - i);
    for (int y = 0; y < 8; ++y)
      EXPECT_NEAR(large.pixels[8 * y + x], std::clamp(value, 0.0, 255.0), 1.0) << x;
  }
}

TEST(ToChannels, GreyIsBt601AndBack) {
  Image image{1, 4, 3, {255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 200, 90}};
  const Image grey = to_channels(image, 1);
  // round(0.299 R + 0.587 G + 0.114 B)
  EXPECT_THAT(grey.pixels, ElementsAre(76, 150, 29, 131));
  const Image rgb = to_channels(grey, 3);
  EXPECT_EQ(rgb.channels, 3);
  EXPECT_THAT(pixel(rgb, 0, 3), ElementsAre(131, 131, 131));
  EXPECT_EQ(to_channels(image, 3).pixels, image.pixels);
  EXPECT_THROW(to_channels(image, 4), UsageError);
}

TEST(HasImageExtension, Names) {
  for (const char* yes : {"a.png", "a.JPG", "b/c.jpeg", "a.b.PnG", "a.webp", "a.JFIF", "a.jpe",
                          "a.bmp", "a.dib", "a.tif", "a.TIFF", "a.pgm", "a.ppm", "a.pnm", "a.pbm"})
    EXPECT_TRUE(has_image_extension(yes)) << yes;
  for (const char* no : {"png", "a.gif", "a.png.txt", "", "a."})
    EXPECT_FALSE(has_image_extension(no)) << no;
}

}  // namespace
}  // namespace sfumato
