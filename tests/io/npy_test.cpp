#include "sfumato/io/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/image_bytes.h"
#include "io/npy_bytes.h"
#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

class Npy : public ::testing::Test {
 protected:
  NpyReader open(const std::string& bytes) {
    put(folder_ / "a.npy", bytes);
    return NpyReader(folder_ / "a.npy");
  }
  std::vector<std::int64_t> integers(const std::string& bytes) {
    NpyReader reader = open(bytes);
    std::vector<std::int64_t> values;
    for (std::int64_t value; reader.next_integer(value);) values.push_back(value);
    return values;
  }
  std::vector<std::string> texts(const std::string& bytes) {
    NpyReader reader = open(bytes);
    std::vector<std::string> values;
    for (std::string value; reader.next_text(value);) values.push_back(value);
    return values;
  }
  std::string message(const std::string& bytes) {
    return message_of<DataError>([&] {
      NpyReader reader = open(bytes);
      std::vector<std::uint8_t> record(static_cast<std::size_t>(reader.record_bytes()));
      while (reader.next(record)) {
      }
    });
  }
  TempFolder folder_;
};

TEST_F(Npy, RecordsOfEveryVersion) {
  for (const int version : {1, 2, 3}) {
    NpyReader reader = open(make_npy("|u1", "(2, 1, 3)", "abcdef", version));
    EXPECT_EQ(reader.type(), "u1");
    EXPECT_THAT(reader.shape(), ElementsAre(2, 1, 3));
    std::vector<std::uint8_t> record(3);
    ASSERT_TRUE(reader.next(record));
    EXPECT_THAT(record, ElementsAre('a', 'b', 'c'));
    ASSERT_TRUE(reader.next(record));
    EXPECT_THAT(record, ElementsAre('d', 'e', 'f'));
    EXPECT_FALSE(reader.next(record));
  }
}

TEST_F(Npy, IntegersOfEverySizeSignAndByteOrder) {
  EXPECT_THAT(integers(make_npy("|u1", "(2,)", "\xFF\x01")), ElementsAre(255, 1));
  EXPECT_THAT(integers(make_npy("|i1", "(2, 1)", "\xFF\x01")), ElementsAre(-1, 1));
  EXPECT_THAT(integers(make_npy("|b1", "(2L,)", std::string("\0\x01", 2))), ElementsAre(0, 1));
  EXPECT_THAT(integers(make_npy("<i2", "(1,)", "\xFE\xFF")), ElementsAre(-2));
  EXPECT_THAT(integers(make_npy(">i2", "(1,)", "\xFF\xFE")), ElementsAre(-2));
  EXPECT_THAT(integers(make_npy("<u4", "(1,)", "\xFF\xFF\xFF\xFF")), ElementsAre(4294967295));
  EXPECT_THAT(integers(make_npy(">i8", "(1,)", std::string("\0\0\0\0\0\0\x01\x02", 8))),
              ElementsAre(258));
  EXPECT_THAT(integers(make_npy("<i8", "(0,)", "")), ElementsAre());
  EXPECT_THAT(
      message_of<DataError>([&] { integers(make_npy("<u8", "(1,)", std::string(8, '\xFF'))); }),
      HasSubstr("too large"));
}

TEST_F(Npy, Texts) {
  EXPECT_THAT(texts(make_npy("|S3", "(2,)", std::string("cat\x65\0\0", 6))),
              ElementsAre("cat", "e"));
  const std::string eel = std::string("\xE9\0\0\0l\0\0\0", 8);  // "él"
  EXPECT_THAT(texts(make_npy("<U2", "(1,)", eel)), ElementsAre("\xC3\xA9l"));
  EXPECT_THAT(texts(make_npy(">U1", "(1,)", std::string("\0\x01\xF6\0", 4))),
              ElementsAre("\xF0\x9F\x98\x80"));
  EXPECT_THAT(
      message_of<DataError>([&] { texts(make_npy("<U1", "(1,)", std::string("\0\xD8\0\0", 4))); }),
      HasSubstr("no Unicode"));
}

TEST_F(Npy, OrderOfKeysAndSpacing) {
  const std::string content = "ab";
  EXPECT_THAT(integers(npy_with_header(
                  "{\"shape\":(2,),\"descr\":\"|u1\",\"fortran_order\":False}\n", content)),
              ElementsAre('a', 'b'));
  EXPECT_EQ(message(npy_with_header("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 2), }\n",
                                    content)),
            "no error");  // one dimension at most: both orders are the same
}

TEST_F(Npy, HeadersThatAreRefused) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"{'descr': '|u1', 'fortran_order': True, 'shape': (2, 1, 3), }\n", "ascontiguousarray"},
      {"{'descr': '|O', 'fortran_order': False, 'shape': (6,), }\n", "Python objects"},
      {"{'descr': [('x', '|u1')], 'fortran_order': False, 'shape': (6,), }\n", "structured"},
      {"{'descr': '|q1', 'fortran_order': False, 'shape': (6,), }\n", "unknown"},
      {"{'descr': '<u3', 'fortran_order': False, 'shape': (2,), }\n", "unknown"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n", "single number"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (-6,), }\n", "shape"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': [6], }\n", "tuple"},
      {"{'descr': '|u1', 'fortran_order': 0, 'shape': (6,), }\n", "neither True"},
      {"{'descr': '|u1', 'shape': (6,), }\n", "lacks"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (6,), 'more': 1}\n", "key too many"},
      {"{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (6,)}\n", "key too many"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (6,), } + x\n", "follows"},
      {"__import__('os')\n", "no dictionary"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (6", "shape"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775807, 9), }\n",
       "impossible shape"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,), }\n",
       "impossible"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }\n", "truncated"},
      {"", "no dictionary"}};
  for (const auto& [header, expected] : wrong)
    EXPECT_THAT(message(npy_with_header(header, "abcdef")), HasSubstr(expected)) << header;
}

TEST_F(Npy, WrongMagicVersionAndLength) {
  const std::string whole = make_npy("|u1", "(6,)", "abcdef");
  EXPECT_THAT(message("nothing of the kind"), HasSubstr("does not begin"));
  std::string spoilt = whole;
  spoilt[6] = 4;
  EXPECT_THAT(message(spoilt), HasSubstr("version 4.0"));
  EXPECT_THAT(message(whole + "x"), HasSubstr("extra bytes"));
  EXPECT_THAT(message(gzip(whole + "x")), HasSubstr("extra bytes"));
  EXPECT_THAT(message(gzip(whole.substr(0, whole.size() - 1))), HasSubstr("truncated"));
  EXPECT_EQ(message(gzip(whole)), "no error");
  std::string long_header = make_npy("|u1", "(6,)", "abcdef", 2);
  long_header[11] = '\x7F';
  EXPECT_THAT(message(long_header), HasSubstr("claims a header of"));
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_THAT(message(whole.substr(0, size)), HasSubstr("a.npy")) << size;
}

}  // namespace
}  // namespace sfumato
