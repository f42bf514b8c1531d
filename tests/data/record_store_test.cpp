#include "sfumato/data/record_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "io/image_bytes.h"
#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/inspect_store.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/io/json_file.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace test;

const std::string kKey(32, 'k');

StoreLayout small_layout() { return {2, 3, 1, 2, {"cat", "dog"}, false, 1}; }

std::vector<std::uint8_t> record(int seed, std::size_t size = 6) {
  std::vector<std::uint8_t> pixels(size);
  for (std::size_t i = 0; i < size; ++i) pixels[i] = static_cast<std::uint8_t>(seed * 31 + 7 * i);
  return pixels;
}

std::string write_small(const std::filesystem::path& path, int count = 5) {
  RecordStoreWriter writer(path, small_layout(), kKey);
  for (int i = 0; i < count; ++i) writer.append(record(i), i % 2);
  return writer.finish({{"note", "by a test"}});
}

std::string open_error(const std::filesystem::path& path) {
  return message_of<DataError>([&] { RecordStore::open(path); });
}

void flip_bit(const std::filesystem::path& path, std::size_t at) {
  std::string bytes = get(path);
  bytes[at] = static_cast<char>(bytes[at] ^ 4);
  put(path, bytes);
}

TEST(RecordStore, RoundTrip) {
  TempFolder folder;
  const std::string hash = write_small(folder / "store");
  RecordStore opened = RecordStore::open(folder / "store");
  const RecordStore store = std::move(opened);  // spans stay valid
  EXPECT_EQ(store.count(), 5);
  EXPECT_EQ(store.height(), 2);
  EXPECT_EQ(store.width(), 3);
  EXPECT_EQ(store.channels(), 1);
  EXPECT_EQ(store.num_classes(), 2);
  EXPECT_THAT(store.class_names(), ElementsAre("cat", "dog"));
  EXPECT_EQ(store.unit(), "one image");
  EXPECT_EQ(store.records_per_unit(), 1);
  EXPECT_EQ(store.manifest_hash(), hash);
  for (int i = 0; i < 5; ++i) {
    const auto pixels = store.pixels(i);
    EXPECT_EQ(std::vector<std::uint8_t>(pixels.begin(), pixels.end()), record(i));
    EXPECT_EQ(store.label(i), i % 2);
    EXPECT_EQ(store.user(i), -1);
  }
  EXPECT_NO_THROW(store.verify_checksums());
  EXPECT_THROW(store.pixels(5), DataError);
  EXPECT_THROW(store.label(-1), DataError);
}

TEST(RecordStore, FilesAreAsDocumentedAndPrivate) {
  TempFolder folder;
  write_small(folder / "store/", 2);  // a trailing slash is no other place
  const std::string records = get(folder / "store/records.bin");
  ASSERT_EQ(records.size(), 4096u + 12u);
  EXPECT_EQ(records.substr(0, 16), "SFUMATO RECORDS\n");
  EXPECT_EQ(records.substr(16, 16), std::string("\1\0\0\0\2\0\0\0\3\0\0\0\1\0\0\0", 16));
  EXPECT_EQ(static_cast<unsigned char>(records[4096 + 6 + 1]), 31 + 7);
  EXPECT_EQ(get(folder / "store/labels.bin"), std::string("\0\0\0\0\1\0\0\0", 8));
  EXPECT_FALSE(std::filesystem::exists(folder / "store/users.bin"));
  for (const char* name :
       {"store", "store/records.bin", "store/labels.bin", "store/manifest.json"}) {
    struct stat info {};
    ASSERT_EQ(::stat((folder / name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 077, 0u) << name;
  }
  const auto manifest = read_json(folder / "store/manifest.json");
  EXPECT_EQ(manifest.at("files").at("records.bin").at("sha256"), sha256_hex(records));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(RecordStore, UsersAndUnconditional) {
  TempFolder folder;
  RecordStoreWriter writer(folder / "store", {1, 2, 3, 0, {}, true, 4});
  writer.append(record(1), 99, 7);
  writer.append(record(2), -5, 0);
  writer.finish();
  const RecordStore store = RecordStore::open(folder / "store");
  EXPECT_EQ(store.label(0), 0);
  EXPECT_EQ(store.user(0), 7);
  EXPECT_EQ(store.user(1), 0);
  EXPECT_EQ(store.unit(), "one user, at most 4 images");
  EXPECT_EQ(store.records_per_unit(), 4);
  EXPECT_FALSE(std::filesystem::exists(folder / "store/labels.bin"));
}

TEST(RecordStore, ManifestHashIsKeyedAndTiesTheData) {
  TempFolder folder;
  const std::string a = write_small(folder / "a");
  EXPECT_EQ(a, write_small(folder / "b")) << "same key, same data";
  EXPECT_NE(a, write_small(folder / "c", 4)) << "other data";
  const auto with_random_key = [&](const std::string& name) {
    RecordStoreWriter writer(folder / name, small_layout());
    for (int i = 0; i < 5; ++i) writer.append(record(i), i % 2);
    return writer.finish({{"note", "by a test"}});
  };
  const std::string d = with_random_key("d");
  EXPECT_NE(d, a);
  EXPECT_NE(d, with_random_key("e")) << "without the key the data cannot be guessed from the hash";
  // The definition, computed here.
  auto manifest = read_json(folder / "a/manifest.json");
  const std::string key = manifest.at("key");
  manifest.erase("key");
  manifest.erase("manifest_hash");
  EXPECT_EQ(a, hmac_sha256_hex(key, manifest.dump()));
}

TEST(RecordStore, BitFlipsAreDetected) {
  TempFolder folder;
  for (const auto& [name, at] : {std::pair("records.bin", 4096 + 9), std::pair("labels.bin", 0)}) {
    const auto path = folder / name;
    RecordStoreWriter writer(path, {2, 3, 1, 9, std::vector<std::string>(9, "x"), false, 1}, kKey);
    for (int i = 0; i < 5; ++i) writer.append(record(i), i % 2);
    writer.finish();
    flip_bit(path / name, static_cast<std::size_t>(at));
    const RecordStore store = RecordStore::open(path);
    const std::string message = message_of<DataError>([&] { store.verify_checksums(); });
    EXPECT_THAT(message, HasSubstr(name));
    EXPECT_THAT(message, HasSubstr("damaged"));
    EXPECT_THAT(message_of<DataError>([&] { describe_store(path); }), HasSubstr(name));
  }
}

TEST(RecordStore, OpenDetectsWhatIsCheapToDetect) {
  TempFolder folder;
  int next = 0;
  const auto damaged = [&](auto&& damage) {
    const auto path = folder / ("store" + std::to_string(next++));
    write_small(path);
    damage(path);
    return open_error(path);
  };
  EXPECT_THAT(damaged([](auto p) { std::filesystem::resize_file(p / "records.bin", 4100); }),
              HasSubstr("has 4100 bytes, its store needs 4126"));
  EXPECT_THAT(damaged([](auto p) { std::filesystem::resize_file(p / "records.bin", 5000); }),
              HasSubstr("records.bin"));
  EXPECT_THAT(damaged([](auto p) { std::filesystem::resize_file(p / "labels.bin", 19); }),
              HasSubstr("labels.bin"));
  EXPECT_THAT(damaged([](auto p) { std::filesystem::remove(p / "labels.bin"); }),
              HasSubstr("labels.bin"));
  EXPECT_THAT(damaged([](auto p) { std::filesystem::remove(p / "manifest.json"); }),
              HasSubstr("not a record store"));
  EXPECT_THAT(damaged([](auto p) { flip_bit(p / "records.bin", 20); }), HasSubstr("header"));
  EXPECT_THAT(damaged([](auto p) { flip_bit(p / "labels.bin", 1); }), HasSubstr("label"));
  EXPECT_THAT(damaged([](auto p) { put(p / "manifest.json", "{\"kind\": 3}"); }),
              HasSubstr("not the manifest"));
  const auto edit = [](const std::filesystem::path& p, const std::string& key,
                       nlohmann::json value) {
    auto manifest = read_json(p / "manifest.json");
    manifest[key] = std::move(value);
    write_json_atomic(p / "manifest.json", manifest);
  };
  EXPECT_THAT(damaged([&](auto p) { edit(p, "count", 4); }), HasSubstr("edited"));
  EXPECT_THAT(damaged([&](auto p) { edit(p, "unit", "x"); }), HasSubstr("edited"));
  EXPECT_THAT(damaged([&](auto p) { edit(p, "key", 7); }), HasSubstr("damaged"));
  EXPECT_THAT(damaged([&](auto p) { edit(p, "schema_version", 2); }), HasSubstr("version 2"));
  EXPECT_THAT(open_error(folder / "nowhere"), HasSubstr("sfumato prepare"));
}

TEST(RecordStoreWriter, RefusesWhatExists) {
  TempFolder folder;
  write_small(folder / "store");
  const std::string before = get(folder / "store/manifest.json");
  const std::string message = message_of<UsageError>([&] { write_small(folder / "store"); });
  EXPECT_THAT(message, HasSubstr("exists already"));
  EXPECT_THAT(message, HasSubstr("choose another"));
  EXPECT_EQ(get(folder / "store/manifest.json"), before);
  put(folder / "file", "x");
  EXPECT_THROW(write_small(folder / "file"), UsageError);
  std::filesystem::create_directory(folder / "empty");
  EXPECT_NO_THROW(write_small(folder / "empty"));
  EXPECT_EQ(RecordStore::open(folder / "empty").count(), 5);
}

TEST(RecordStoreWriter, PlaceThatCannotBeWritten) {
  TempFolder folder;
  put(folder / "file", "x");
  EXPECT_THROW(write_small(folder / "file/store"), DataError);
  // The superuser may write anywhere, so the attempt is made by a child without privileges.
  ::chmod(folder.path().c_str(), 0755);
  std::filesystem::create_directory(folder / "locked");
  ::chmod((folder / "locked").c_str(), 0555);
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (::geteuid() == 0 && (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0)) ::_exit(2);
    const std::string message =
        message_of<DataError>([&] { write_small(folder / "locked/store"); });
    ::_exit(message.find("locked") != std::string::npos &&
                    message.find("Permission denied") != std::string::npos
                ? 0
                : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(RecordStoreWriter, UnfinishedLeavesNothing) {
  TempFolder folder;
  {
    RecordStoreWriter writer(folder / "store", small_layout());
    writer.append(record(1), 0);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  {
    RecordStoreWriter writer(folder / "store", small_layout());
    EXPECT_THAT(message_of<DataError>([&] { writer.finish(); }), HasSubstr("no image"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

/// A limit on the size of files stands in for a full disk: the same calls fail, at the same places.
TEST(RecordStoreWriter, FullDiskIsACleanErrorWithoutHalfAStore) {
  TempFolder folder;
  struct rlimit old {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 1 << 20, old.rlim_max };
  const StoreLayout layout{100, 100, 3, 0, {}, false, 1};
  std::string message;
  ::setrlimit(RLIMIT_FSIZE, &small);
  {
    RecordStoreWriter writer(folder / "store", layout);
    message = message_of<DataError>([&] {
      for (int i = 0; i < 100; ++i) writer.append(record(i, 30000), 0);
      writer.finish();
    });
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("cannot write"));
  EXPECT_THAT(message, HasSubstr("records.bin"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(RecordStoreWriter, OneWriterAtATimeAndAKilledOneIsSweptAway) {
  TempFolder folder;
  {
    RecordStoreWriter first(folder / "store", small_layout());
    EXPECT_THAT(message_of<UsageError>([&] { write_small(folder / "store"); }),
                HasSubstr("another process"));
    first.append(record(1), 1);
    first.finish();
  }
  const pid_t child = ::fork();
  if (child == 0) {
    RecordStoreWriter writer(folder / "killed", small_layout());
    writer.append(record(1), 0);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_TRUE(std::filesystem::exists(folder / ".killed.partial"));
  EXPECT_FALSE(std::filesystem::exists(folder / "killed"));
  write_small(folder / "killed");
  EXPECT_EQ(RecordStore::open(folder / "killed").count(), 5);
  EXPECT_FALSE(std::filesystem::exists(folder / ".killed.partial"));
}

TEST(RecordStoreWriter, RefusesWrongRecordsAndLayouts) {
  TempFolder folder;
  RecordStoreWriter writer(folder / "store", small_layout());
  EXPECT_THROW(writer.append(record(1, 5), 0), DataError);
  EXPECT_THROW(writer.append(record(1), 2), DataError);
  EXPECT_THROW(writer.append(record(1), -1), DataError);
  EXPECT_EQ(writer.count(), 0);
  for (const StoreLayout& bad :
       {StoreLayout{0, 3, 1, 0, {}, false, 1}, StoreLayout{2, 3, 2, 0, {}, false, 1},
        StoreLayout{2, 3, 1, 2, {"one"}, false, 1}, StoreLayout{2, 3, 1, 0, {}, true, 0},
        StoreLayout{2, 3, 1, 0, {}, false, 5}, StoreLayout{1 << 20, 1 << 20, 1, 0, {}, false, 1}})
    EXPECT_THROW(RecordStoreWriter(folder / "bad", bad), UsageError);
  RecordStoreWriter with_users(folder / "users", {2, 3, 1, 0, {}, true, 1});
  EXPECT_THROW(with_users.append(record(1), 0), DataError);
}

TEST(DescribeStore, SaysWhatIsInsideAndNotTheKey) {
  TempFolder folder;
  write_small(folder / "store");
  const std::string text = describe_store(folder / "store");
  EXPECT_THAT(text, HasSubstr("5 of 3x2, grey"));
  EXPECT_THAT(text, HasSubstr("one image"));
  EXPECT_THAT(text, HasSubstr("by a test"));
  EXPECT_THAT(text, ::testing::ContainsRegex("1 +dog +2\n"));
  EXPECT_THAT(text, Not(HasSubstr("6b6b6b6b")));  // kKey in hexadecimal
}

}  // namespace
}  // namespace sfumato
