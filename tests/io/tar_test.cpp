#include "sfumato/io/tar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "io/image_bytes.h"
#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using namespace test;

using Members = std::vector<std::pair<std::string, std::string>>;

Members read_files(const std::filesystem::path& path, std::string* remark = nullptr) {
  TarReader reader(path);
  TarEntry entry;
  Members members;
  while (reader.next(entry))
    if (entry.kind == TarEntry::Kind::kFile)
      members.emplace_back(entry.name, reader.read_content());
  EXPECT_FALSE(reader.next(entry)) << "it ends once and for all";
  if (remark != nullptr) *remark = reader.end_remark();
  return members;
}

/// A header by hand; the checksum is filled in.
std::string tar_header(const std::string& name, char type, std::size_t size) {
  std::string block(512, '\0');
  block.replace(0, name.size(), name);
  char digits[13];
  std::snprintf(digits, sizeof digits, "%011zo", size);
  block.replace(124, 11, digits);
  block[156] = type;
  block.replace(257, 5, "ustar");
  block.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  std::snprintf(digits, sizeof digits, "%06o", sum);
  block.replace(148, 6, digits);
  block[154] = '\0';
  return block;
}

std::string padded(std::string content) {
  content.resize((content.size() + 511) / 512 * 512, '\0');
  return content;
}

class Tar : public ::testing::Test {
 protected:
  std::string message(const std::string& bytes) {
    put(folder_ / "a.tar", bytes);
    return message_of<DataError>([&] { read_files(folder_ / "a.tar", &remark_); });
  }
  Members members(const std::string& bytes) {
    put(folder_ / "a.tar", bytes);
    return read_files(folder_ / "a.tar", &remark_);
  }
  TempFolder folder_;
  std::string remark_;  ///< of the archive that was read last
  const std::string end_ = std::string(1024, '\0');
};

TEST_F(Tar, WriterAndReaderRoundTrip) {
  const std::string long_name = std::string(150, 'd') + "/" + std::string(130, 'f') + ".png";
  const std::string exactly_100(100, 'n');
  {
    TarWriter writer(folder_ / "w.tar");
    writer.add("a/1.png", "one");
    writer.add("empty", "");
    writer.add(long_name, std::string(5000, 'x'));
    writer.add(exactly_100, std::string(512, 'y'));
    writer.finish();
  }
  EXPECT_THAT(read_files(folder_ / "w.tar"), ElementsAre(Pair("a/1.png", "one"), Pair("empty", ""),
                                                         Pair(long_name, std::string(5000, 'x')),
                                                         Pair(exactly_100, std::string(512, 'y'))));
  put(folder_ / "w.tgz", gzip(get(folder_ / "w.tar")));
  EXPECT_EQ(read_files(folder_ / "w.tgz"), read_files(folder_ / "w.tar"));
}

TEST_F(Tar, UnfinishedArchiveLeavesNothing) {
  { TarWriter(folder_ / "w.tar").add("a", "b"); }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

/// The tar program of the system is the other party to the format, in all its dialects.
TEST_F(Tar, AgreesWithTheTarProgram) {
  if (std::system("tar --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no tar program";
  const std::string long_name = std::string(90, 'd') + "/" + std::string(80, 'f') + ".png";
  std::filesystem::create_directories(folder_ / "in/cat");
  std::filesystem::create_directories(folder_ / "in" / long_name.substr(0, 90));
  put(folder_ / "in/cat/1.png", std::string(1000, 'c'));
  put(folder_ / ("in/" + long_name), "long");
  std::filesystem::create_symlink("1.png", folder_ / "in/cat/2.png");
  for (const char* format : {"ustar", "gnu", "pax", "v7"}) {
    if (std::string(format) == "v7") std::filesystem::remove(folder_ / ("in/" + long_name));
    const std::string command = "cd '" + (folder_ / "in").string() +
                                "' && tar --sort=name --format=" + format +
                                " -czf ../t.tgz . 2> /dev/null";
    ASSERT_EQ(std::system(command.c_str()), 0) << format;
    Members expected = {{"cat/1.png", std::string(1000, 'c')}};
    if (std::string(format) != "v7") expected.emplace_back(long_name, "long");
    EXPECT_EQ(read_files(folder_ / "t.tgz"), expected) << format;
  }
  TarWriter writer(folder_ / "w.tar");
  writer.add(long_name, "content");
  writer.add("b.txt", std::string(700, 'b'));
  writer.finish();
  const std::string command =
      "cd '" + folder_.path().string() + "' && mkdir out && tar -xf w.tar -C out";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(get(folder_ / ("out/" + long_name)), "content");
  EXPECT_EQ(get(folder_ / "out/b.txt"), std::string(700, 'b'));
}

TEST_F(Tar, NamesAreOnlyNames) {
  const std::string bytes = tar_header("../../etc/passwd", '0', 3) + padded("abc") +
                            tar_header("/abs.png", '0', 1) + padded("d") +
                            tar_header("./here.png", '0', 1) + padded("e") + end_;
  EXPECT_THAT(members(bytes), ElementsAre(Pair("../../etc/passwd", "abc"), Pair("/abs.png", "d"),
                                          Pair("here.png", "e")));
}

TEST_F(Tar, LinksHaveNoContentWhateverTheirSizeSays) {
  const std::string bytes =
      tar_header("link", '1', 4000) + tar_header("file", '0', 1) + padded("x") + end_;
  EXPECT_THAT(members(bytes), ElementsAre(Pair("file", "x")));
}

TEST_F(Tar, EveryTruncationIsAnError) {
  const std::string whole = tar_header("a.png", '0', 600) + padded(std::string(600, 'x')) +
                            tar_header("b.png", '0', 3) + padded("abc") + end_;
  for (std::size_t size = 0; size < whole.size() - 1023; size += size % 512 == 0 ? 1 : 73) {
    const std::size_t used = std::min(size, whole.size() - 1024 + 511);
    // Between two members nobody can tell: the tar program reads on in silence, here it is said.
    if (used == 1536 || used == 2560) {
      EXPECT_EQ(message(whole.substr(0, used)), "no error") << used;
      EXPECT_THAT(remark_, HasSubstr("no closing block")) << used;
    } else {
      EXPECT_THAT(message(whole.substr(0, used)), HasSubstr("truncated")) << used;
    }
  }
  for (const std::size_t used : {std::size_t{1536}, std::size_t{2560}}) {
    EXPECT_EQ(members(whole.substr(0, used)).size(), used == 1536 ? 1u : 2u);
    EXPECT_THAT(remark_, HasSubstr("no closing block"));
    EXPECT_EQ(members(gzip(whole.substr(0, used))).size(), used == 1536 ? 1u : 2u);
  }
  EXPECT_EQ(message(whole), "no error");
  EXPECT_EQ(message(whole.substr(0, whole.size() - 512)), "no error");
  const std::string packed = gzip(whole);
  for (std::size_t size = 1; size < packed.size(); size += 7)
    EXPECT_THAT(message(packed.substr(0, size)), HasSubstr("a.tar")) << size;
}

TEST_F(Tar, SeveralArchivesInOneFileAndBytesAfterTheEnd) {
  const std::string one = tar_header("a.png", '0', 1) + padded("x") + end_;
  const std::string two = tar_header("b.png", '0', 1) + padded("y") + end_;
  EXPECT_THAT(members(one + std::string(8 * 512, '\0')), ElementsAre(Pair("a.png", "x")));
  EXPECT_EQ(remark_, "");
  EXPECT_THAT(members(one + two), ElementsAre(Pair("a.png", "x"), Pair("b.png", "y")));
  EXPECT_THAT(remark_, HasSubstr("2 archives"));
  EXPECT_THAT(members(one + std::string(600, 'z')), ElementsAre(Pair("a.png", "x")));
  EXPECT_THAT(remark_, HasSubstr("are not read"));
  EXPECT_THAT(members(one + "z"), ElementsAre(Pair("a.png", "x")));
  EXPECT_THAT(remark_, HasSubstr("are not read"));
  EXPECT_THAT(message(one + two.substr(0, 700)), HasSubstr("truncated"));
}

TEST_F(Tar, DamagedHeaders) {
  std::string bytes = tar_header("a.png", '0', 3) + padded("abc") + end_;
  bytes[3] = 'X';
  EXPECT_THAT(message(bytes), HasSubstr("checksum"));
  EXPECT_THAT(message(std::string(2000, 'z')), HasSubstr("checksum"));
  EXPECT_THAT(message(tar_header("a", 'x', 20) + padded("99 path=b\n") + end_),
              HasSubstr("broken pax header"));
  EXPECT_THAT(message(tar_header("a", 'x', 20) + padded("nonsense without") + end_),
              HasSubstr("broken pax header"));
  EXPECT_THAT(message(tar_header("a", 'L', 1 << 30) + end_), HasSubstr("implausibly large"));
  EXPECT_THAT(message(tar_header("a", 'S', 0) + end_), HasSubstr("not supported"));
}

TEST_F(Tar, HugeStatedSizeTakesNoMemory) {
  const std::string bytes = tar_header("a.png", '0', (std::size_t{1} << 32)) + padded("abc") + end_;
  EXPECT_THAT(message(bytes), HasSubstr("at most"));
  EXPECT_THAT(message(tar_header("a.png", '0', std::size_t{1} << 29) + end_),
              HasSubstr("truncated"));
}

TEST_F(Tar, WriterRefusesImpossibleNames) {
  TarWriter writer(folder_ / "w.tar");
  EXPECT_THROW(writer.add("", "x"), DataError);
  EXPECT_THROW(writer.add(std::string("a\0b", 3), "x"), DataError);
  EXPECT_THROW(TarWriter(folder_ / "none/w.tar"), DataError);
}

}  // namespace
}  // namespace sfumato
