#include "sfumato/io/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/image_bytes.h"
#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

class Idx : public ::testing::Test {
 protected:
  std::filesystem::path file(const std::string& bytes) {
    const auto path = folder_ / "train-images";
    put(path, bytes);
    return path;
  }

  /// Reads all records; the message of the DataError.
  std::string read_all(const std::string& bytes) {
    const auto path = file(bytes);
    return message_of<DataError>([&] {
      IdxReader reader(path);
      std::vector<std::uint8_t> record(static_cast<std::size_t>(reader.record_bytes()));
      while (reader.next(record)) {
      }
    });
  }

  TempFolder folder_;
};

TEST_F(Idx, ReadsImagesPlainAndGzip) {
  const std::string bytes = make_idx(8, {2, 2, 3}, "abcdefghijkl");
  for (const std::string& stored : {bytes, gzip(bytes)}) {
    IdxReader reader(file(stored));
    EXPECT_EQ(reader.type(), 8);
    EXPECT_THAT(reader.dimensions(), ElementsAre(2, 2, 3));
    EXPECT_EQ(reader.record_bytes(), 6);
    std::vector<std::uint8_t> record(6);
    ASSERT_TRUE(reader.next(record));
    EXPECT_EQ(std::string(record.begin(), record.end()), "abcdef");
    ASSERT_TRUE(reader.next(record));
    EXPECT_EQ(std::string(record.begin(), record.end()), "ghijkl");
    EXPECT_FALSE(reader.next(record));
  }
}

TEST_F(Idx, ReadsIntegersOfEveryWidth) {
  const std::vector<std::pair<int, std::string>> files = {
      {0x08, std::string("\x05\xff\x00", 3)},
      {0x09, std::string("\x05\xff\x00", 3)},
      {0x0B, std::string("\x01\x02\xff\xfe\x00\x00", 6)},
      {0x0C, std::string("\x01\x02\x03\x04\xff\xff\xff\xfd\x00\x00\x00\x00", 12)}};
  const std::vector<std::vector<std::int64_t>> expected = {
      {5, 255, 0}, {5, -1, 0}, {0x0102, -2, 0}, {0x01020304, -3, 0}};
  for (std::size_t i = 0; i < files.size(); ++i) {
    IdxReader reader(file(make_idx(files[i].first, {3}, files[i].second)));
    std::vector<std::int64_t> values;
    for (std::int64_t value; reader.next_integer(value);) values.push_back(value);
    EXPECT_EQ(values, expected[i]);
  }
}

TEST_F(Idx, WrongMagicSaysWhatWasFound) {
  const std::string message = read_all("\x89PNG and so on");
  EXPECT_THAT(message, HasSubstr("train-images"));
  EXPECT_THAT(message, HasSubstr("89 50 4e 47"));
  EXPECT_THAT(read_all(make_idx(7, {1}, "a")), HasSubstr("not an IDX file"));
  EXPECT_THAT(read_all(make_idx(8, {}, "")), HasSubstr("not an IDX file"));
}

TEST_F(Idx, EveryTruncationIsAnError) {
  const std::string whole = make_idx(8, {3, 2, 2}, "abcdefghijkl");
  EXPECT_EQ(read_all(whole), "no error");
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_THAT(read_all(whole.substr(0, size)), HasSubstr("truncated")) << size;
  const std::string packed = gzip(whole);
  EXPECT_EQ(read_all(packed), "no error");
  for (std::size_t size = 0; size < packed.size(); ++size)
    EXPECT_THAT(read_all(packed.substr(0, size)), HasSubstr("train-images")) << size;
  EXPECT_THAT(read_all(gzip(whole.substr(0, whole.size() - 3))), HasSubstr("promise 3 records"));
}

TEST_F(Idx, LengthErrorsNameExpectedAndActual) {
  const std::string message = read_all(make_idx(8, {3, 2, 2}, "abcdefg"));
  EXPECT_THAT(message, HasSubstr("23 bytes"));
  EXPECT_THAT(message, HasSubstr("need 28"));
  EXPECT_THAT(read_all(make_idx(8, {1, 2, 2}, "abcdefg")), HasSubstr("extra bytes"));
  EXPECT_THAT(read_all(gzip(make_idx(8, {1, 2, 2}, "abcdefg"))), HasSubstr("extra bytes"));
}

TEST_F(Idx, ImpossibleDimensionsTakeNoMemory) {
  EXPECT_THAT(read_all(make_idx(8, {0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, "a")),
              HasSubstr("impossible dimensions"));
}

TEST_F(Idx, DamagedGzip) {
  std::string packed = gzip(make_idx(8, {200, 4, 4}, std::string(3200, 'x')));
  packed[packed.size() - 6] = static_cast<char>(packed[packed.size() - 6] ^ 1);  // its checksum
  EXPECT_THAT(read_all(packed), HasSubstr("train-images"));
}

TEST_F(Idx, MissingFileAndFolder) {
  EXPECT_THAT(message_of<DataError>([&] { IdxReader reader(folder_ / "none"); }),
              HasSubstr("No such file"));
  EXPECT_THAT(message_of<DataError>([&] { IdxReader reader(folder_.path()); }),
              HasSubstr("is a folder"));
}

}  // namespace
}  // namespace sfumato
