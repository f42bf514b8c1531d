#include "sfumato/io/zip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "io/image_bytes.h"
#include "io/safetensors_bytes.h"
#include "io/zip_bytes.h"
#include "sfumato/core/error.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using namespace test;

using Members = std::vector<std::pair<std::string, std::string>>;

class Zip : public ::testing::Test {
 protected:
  Members members(const std::string& bytes) {
    put(folder_ / "a.zip", bytes);
    const ZipReader reader(folder_ / "a.zip");
    Members found;
    for (const ZipEntry& entry : reader.entries())
      if (entry.kind == ZipEntry::Kind::kFile) found.emplace_back(entry.name, reader.read(entry));
    return found;
  }
  std::string message(const std::string& bytes) {
    return message_of<DataError>([&] { members(bytes); });
  }
  TempFolder folder_;
  const std::vector<ZipMember> two_ = {
      {.name = "cat/1.png", .content = std::string(3000, 'c')},
      {.name = "dog/2.png", .content = std::string(70000, 'd') + "end", .deflated = true}};
  const Members content_ = {{"cat/1.png", std::string(3000, 'c')},
                            {"dog/2.png", std::string(70000, 'd') + "end"}};
};

TEST_F(Zip, StoredAndDeflated) {
  EXPECT_EQ(members(make_zip(two_)), content_);
  EXPECT_EQ(members(make_zip(two_, false, "a comment of PK\5\6 bytes")), content_);
  EXPECT_EQ(members(make_zip(two_, false, "", "#!/bin/sh self-extracting")), content_);
  EXPECT_TRUE(members(make_zip({})).empty());
  EXPECT_TRUE(looks_like_zip(make_zip(two_)));
  EXPECT_TRUE(looks_like_zip(make_zip({})));
  EXPECT_FALSE(looks_like_zip("PK is not enough"));
}

TEST_F(Zip, Zip64) {
  std::vector<ZipMember> large = two_;
  for (ZipMember& member : large) member.zip64 = true;
  EXPECT_EQ(members(make_zip(large, true)), content_);
  EXPECT_EQ(members(make_zip(two_, true)), content_);
  EXPECT_EQ(members(make_zip(large, true, "", "before")), content_);
  large[1].stated_size = 1LL << 62;
  EXPECT_THAT(message(make_zip(large, true)), HasSubstr("cannot unpack"));
  large[1].offset_off_by = 1LL << 61;
  EXPECT_THAT(message(make_zip(large, true)), HasSubstr("outside the archive"));
}

TEST_F(Zip, KindsAndNames) {
  put(folder_ / "a.zip",
      make_zip({{.name = "cat/"},
                {.name = "./cat/1.png", .content = "x"},
                {.name = "link", .content = "cat/1.png", .attributes = 0120777u << 16},
                {.name = "dog\\2.png", .content = "y", .made_by = 0},
                {.name = "eel\\3.png", .content = "z"}}));
  const ZipReader reader(folder_ / "a.zip");
  std::vector<std::pair<std::string, int>> found;
  for (const ZipEntry& entry : reader.entries())
    found.emplace_back(entry.name, static_cast<int>(entry.kind));
  EXPECT_THAT(found, ElementsAre(Pair("cat", 1), Pair("cat/1.png", 0), Pair("link", 2),
                                 Pair("dog/2.png", 0), Pair("eel\\3.png", 0)));
}

TEST_F(Zip, ReadsInPieces) {
  put(folder_ / "a.zip", make_zip(two_));
  const ZipReader reader(folder_ / "a.zip");
  for (std::size_t m : {0, 1}) {
    ZipStream stream = reader.open(reader.entries()[m]);
    std::string all;
    for (char piece[777]; const std::size_t got = stream.read(piece, sizeof piece);)
      all.append(piece, got);
    EXPECT_EQ(all, content_[m].second);
  }
}

TEST_F(Zip, EveryTruncationAndEveryFlippedByteIsAnErrorOrHarmless) {
  const std::string whole = make_zip(
      {{.name = "a.png", .content = "stored content"},
       {.name = "b.png", .content = std::string(400, 'b') + "deflated", .deflated = true}});
  const Members right = members(whole);
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_THAT(message(whole.substr(0, size)), HasSubstr("a.zip")) << size;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string spoilt = whole;
    spoilt[at] = static_cast<char>(spoilt[at] ^ 0x55);
    Members found;
    const std::string error = message_of<DataError>([&] { found = members(spoilt); });
    // Times, versions and attributes are not read; names are only names. Content never changes.
    if (error != "no error") continue;
    for (const auto& [name, content] : found)
      EXPECT_THAT(content, AnyOf(right[0].second, right[1].second)) << at;
  }
}

TEST_F(Zip, WhatIsNotReadIsNamed) {
  EXPECT_THAT(message(make_zip({{.name = "a.png", .content = "x", .flags = 1}})),
              HasSubstr("a.png' in a zip archive: it is encrypted"));
  EXPECT_THAT(message(make_zip({{.name = "a.png", .content = "x", .method = 12}})),
              HasSubstr("method 12 (bzip2)"));
  EXPECT_THAT(message("no zip at all"), HasSubstr("no directory"));
  std::string parts = make_zip(two_);
  parts[parts.size() - 18] = 1;
  EXPECT_THAT(message(parts), HasSubstr("several disks"));
}

TEST_F(Zip, Bombs) {
  // A directory that lies about the size, in both directions.
  std::vector<ZipMember> lying = two_;
  lying[1].stated_size = 100;
  EXPECT_THAT(message(make_zip(lying)), HasSubstr("goes on after"));
  lying[1].stated_size = 80000;
  EXPECT_THAT(message(make_zip(lying)), HasSubstr("end 9997 bytes early"));
  lying[1].stated_size = 0xF0000000;
  EXPECT_THAT(message(make_zip(lying)), HasSubstr("cannot unpack"));
  lying[0].stated_size = 2999;
  EXPECT_THAT(message(make_zip(lying)), HasSubstr("cannot unpack"));
  // Members that share bytes.
  std::vector<ZipMember> shared = two_;
  shared[1].offset_off_by = -3000;
  EXPECT_THAT(message(make_zip(shared)), HasSubstr("share bytes"));
  shared[1].offset_off_by = 0x40000000;
  EXPECT_THAT(message(make_zip(shared)), HasSubstr("outside the archive"));
  // An honest one that is larger than the caller wants.
  put(folder_ / "a.zip", make_zip(two_));
  const ZipReader reader(folder_ / "a.zip");
  EXPECT_THAT(message_of<DataError>([&] { reader.read(reader.entries()[1], 70002); }),
              HasSubstr("at most 70002"));
}

TEST_F(Zip, DamagedContentAndHeaders) {
  std::vector<ZipMember> spoilt = two_;
  spoilt[0].crc_off_by = 1;
  EXPECT_THAT(message(make_zip(spoilt)), HasSubstr("checksum"));
  spoilt = two_;
  spoilt[1].crc_off_by = 1;
  EXPECT_THAT(message(make_zip(spoilt)), HasSubstr("checksum"));
  std::string bytes = make_zip(two_);
  bytes[bytes.find("cat/1.png") + 5] = 'X';  // in the local header alone
  EXPECT_THAT(message(bytes), HasSubstr("not the one that the directory means"));
  bytes = make_zip(two_);
  bytes[bytes.size() - 12] = 9;  // members in the end record
  EXPECT_THAT(message(bytes), HasSubstr("lists 2 members"));
}

TEST_F(Zip, AStatedSizeTakesNoMemory) {
  std::string noise(1 << 20, '\0');
  std::uint32_t state = 1;
  for (char& c : noise) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  std::vector<ZipMember> lying = {{.name = "a.png", .content = noise, .deflated = true}};
  lying[0].stated_size = std::int64_t{900} << 20;
  struct rusage before {
  }, after{};
  ::getrusage(RUSAGE_SELF, &before);
  EXPECT_THAT(message(make_zip(lying)), HasSubstr("bytes early"));
  ::getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 64 << 10);  // KiB
}

}  // namespace
}  // namespace sfumato
