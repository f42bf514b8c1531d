#include "sfumato/core/printable.h"

#include <gtest/gtest.h>

namespace sfumato {
namespace {

TEST(Printable, LeavesTextAlone) {
  for (const char* text : {"", "one image", "ein Bild, größer als 3 µm", "画像", "a\\b \"c\""})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, EscapesWhatWouldSteerATerminal) {
  EXPECT_EQ(printable("a\x1b[2Jb"), "a\\x1b[2Jb");
  EXPECT_EQ(printable("one\nsound\r\t"), "one\\x0asound\\x0d\\x09");
  EXPECT_EQ(printable(std::string_view("\0\x7f", 2)), "\\x00\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "1m"),
            "\\xc2\\x9b1m");  // CSI as one character
}

TEST(Printable, EscapesBytesThatAreNoText) {
  EXPECT_EQ(printable("\xff"
                      "a"),
            "\\xffa");
  EXPECT_EQ(printable("\xc3"), "\\xc3");
  EXPECT_EQ(printable("\xe2\x82"
                      "b"),
            "\\xe2\\x82b");
  EXPECT_EQ(printable("\xc0\x9b"), "\\xc0\\x9b");
}

}  // namespace
}  // namespace sfumato
