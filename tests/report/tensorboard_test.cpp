#include "sfumato/report/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <ctime>
#include <map>
#include <optional>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/report/crc32c.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::TempFolder;
using ::testing::ElementsAre;
using ::testing::MatchesRegex;

// RFC 3720 B.4, and the check value of the CRC catalogue for "123456789".
TEST(Crc32c, KnownVectors) {
  std::string rising;
  std::string falling;
  for (int i = 0; i < 32; ++i) {
    rising += static_cast<char>(i);
    falling += static_cast<char>(31 - i);
  }
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(crc32c(falling), 0x113fdb5cu);
  const unsigned char iscsi_read[48] = {0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0,
                                        0x14, 0,    0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
                                        0x28, 0,    0, 0, 0, 0, 0, 0, 2, 0, 0, 0,    0, 0, 0, 0};
  EXPECT_EQ(crc32c({reinterpret_cast<const char*>(iscsi_read), 48}), 0xd9963a56u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

/// A decoder that knows protocol buffers, not the writer.
struct Field {
  std::uint64_t type = 0;
  std::uint64_t number = 0;  // varint or fixed-width bits
  std::string bytes;
};
using Fields = std::multimap<std::uint64_t, Field>;

std::uint64_t take_varint(std::string_view& in) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(in.at(0));
    in.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

std::string take(std::string_view& in, std::size_t size) {
  EXPECT_GE(in.size(), size);
  std::string out(in.substr(0, size));
  in.remove_prefix(std::min(size, in.size()));
  return out;
}

template <class T>
T take_fixed(std::string_view& in) {
  T value{};
  const std::string raw = take(in, sizeof value);
  std::memcpy(&value, raw.data(), raw.size());
  return value;
}

Fields decode(std::string_view in) {
  Fields fields;
  while (!in.empty()) {
    const std::uint64_t key = take_varint(in);
    Field field{.type = key & 7, .number = 0, .bytes = {}};
    if (field.type == 0) field.number = take_varint(in);
    if (field.type == 1) field.number = take_fixed<std::uint64_t>(in);
    if (field.type == 5) field.number = take_fixed<std::uint32_t>(in);
    if (field.type == 2) field.bytes = take(in, take_varint(in));
    fields.emplace(key >> 3, field);
  }
  return fields;
}

std::uint32_t unmask(std::uint32_t masked) {
  const std::uint32_t rotated = masked - 0xa282ead8u;
  return rotated >> 17 | rotated << 15;
}

std::vector<Fields> read_events(const std::filesystem::path& path) {
  const std::string content = read_file(path);
  std::string_view in = content;
  std::vector<Fields> events;
  while (!in.empty()) {
    const std::string length = take(in, 8);
    EXPECT_EQ(unmask(take_fixed<std::uint32_t>(in)), crc32c(length));
    std::uint64_t size = 0;
    std::memcpy(&size, length.data(), 8);
    const std::string data = take(in, size);
    EXPECT_EQ(unmask(take_fixed<std::uint32_t>(in)), crc32c(data));
    events.push_back(decode(data));
  }
  return events;
}

const Field& only(const Fields& fields, std::uint64_t number, std::uint64_t type) {
  EXPECT_EQ(fields.count(number), 1u) << "field " << number;
  const Field& field = fields.find(number)->second;
  EXPECT_EQ(field.type, type) << "field " << number;
  return field;
}

double wall_time(const Fields& event) { return std::bit_cast<double>(only(event, 1, 1).number); }

/// Event.summary.value[0]
Fields value_of(const Fields& event) {
  return decode(only(decode(only(event, 5, 2).bytes), 1, 2).bytes);
}

TEST(TensorBoardWriter, RecordsDecode) {
  TempFolder folder;
  const double before = static_cast<double>(std::time(nullptr));
  std::filesystem::path path;
  {
    TensorBoardWriter writer(folder / "tb");
    path = writer.path();
    writer.add_scalar("train/loss", 1, 0.125);
    writer.add_scalar("ε", std::int64_t{1} << 40, -3e30);
    writer.add_scalar("negative", -1, 0);
  }
  EXPECT_THAT(path.filename().string(),
              MatchesRegex("events\\.out\\.tfevents\\.[0-9]{10}\\..+\\.[0-9]+\\.[0-9]+"));
  const std::vector<Fields> events = read_events(path);
  ASSERT_EQ(events.size(), 4u);
  for (const Fields& event : events) {
    EXPECT_GE(wall_time(event), before);
    EXPECT_LE(wall_time(event), before + 60);
  }
  EXPECT_EQ(only(events[0], 3, 2).bytes, "brain.Event:2");

  EXPECT_EQ(only(events[1], 2, 0).number, 1u);
  EXPECT_EQ(only(value_of(events[1]), 1, 2).bytes, "train/loss");
  EXPECT_EQ(only(value_of(events[1]), 2, 5).number, std::bit_cast<std::uint32_t>(0.125f));
  EXPECT_EQ(only(events[2], 2, 0).number, std::uint64_t{1} << 40);
  EXPECT_EQ(only(value_of(events[2]), 1, 2).bytes, "ε");
  EXPECT_EQ(only(value_of(events[2]), 2, 5).number, std::bit_cast<std::uint32_t>(-3e30f));
  EXPECT_EQ(only(events[3], 2, 0).number, ~std::uint64_t{0});
}

// Summary.Value.image (4): height, width, colorspace and encoded_image_string, as in summary.proto.
TEST(TensorBoardWriter, APictureKeepsItsSizeAndBytes) {
  TempFolder folder;
  const std::string png("\x89PNG\0\xff bytes", 13);
  std::filesystem::path path;
  {
    TensorBoardWriter writer(folder / "tb");
    path = writer.path();
    writer.add_image("preview", 7, png, 58, 932);
  }
  const std::vector<Fields> events = read_events(path);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(only(events[1], 2, 0).number, 7u);
  EXPECT_EQ(only(value_of(events[1]), 1, 2).bytes, "preview");
  const Fields image = decode(only(value_of(events[1]), 4, 2).bytes);
  EXPECT_EQ(only(image, 1, 0).number, 58u);
  EXPECT_EQ(only(image, 2, 0).number, 932u);
  EXPECT_EQ(only(image, 3, 0).number, 3u);
  EXPECT_EQ(only(image, 4, 2).bytes, png);
}

// Event.session_log (7) with status (1) START (1), as in tensorflow's event.proto.
TEST(TensorBoardWriter, AResumedSessionSaysWhereItStarts) {
  TempFolder folder;
  std::filesystem::path path;
  {
    TensorBoardWriter writer(folder / "tb", 13);
    path = writer.path();
    writer.add_scalar("a", 13, 1);
  }
  const std::vector<Fields> events = read_events(path);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(only(events[0], 3, 2).bytes, "brain.Event:2");
  EXPECT_EQ(only(events[1], 2, 0).number, 13u);
  EXPECT_EQ(only(decode(only(events[1], 7, 2).bytes), 1, 0).number, 1u);
  EXPECT_EQ(events[1].count(5), 0u);
}

// Readers take the files in the order of their names.
TEST(TensorBoardWriter, ALaterFileSortsLastWhateverTheClockSaid) {
  TempFolder folder;
  std::filesystem::create_directory(folder / "tb");
  write_file_atomic(folder / "tb/events.out.tfevents.4102444800.zoo.1.0", "");
  write_file_atomic(folder / "tb/notes", "");
  std::string last = "events.out.tfevents.4102444800.zoo.1.0";
  for (int i = 0; i < 12; ++i) {
    const std::string name = TensorBoardWriter(folder / "tb").path().filename().string();
    EXPECT_GT(name, last);
    last = name;
  }
}

TEST(TensorBoardWriter, IsPrivateAndFlushes) {
  TempFolder folder;
  TensorBoardWriter writer(folder / "tb");
  struct stat status {};
  ASSERT_EQ(::stat(writer.path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  ASSERT_EQ(::stat((folder / "tb").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);

  writer.add_scalar("a", 1, 1);
  writer.flush();
  EXPECT_EQ(read_events(writer.path()).size(), 2u);
  writer.add_scalar(std::string(100'000, 'x'), 1, 1);  // more than is held back
  EXPECT_EQ(read_events(writer.path()).size(), 3u);

  const TensorBoardWriter second(folder / "tb");
  EXPECT_NE(second.path(), writer.path());
  EXPECT_THROW(TensorBoardWriter("/proc/no/such"), DataError);
}

}  // namespace
}  // namespace sfumato
