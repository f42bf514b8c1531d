#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "sfumato/io/safetensors.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using test::put;
using test::TempFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A file with one-element U8 tensors of these names, holding the letter.
void shard(const fs::path& path, const std::vector<std::string>& names, char letter) {
  std::vector<TensorInfo> tensors;
  const std::byte value{static_cast<unsigned char>(letter)};
  for (const std::string& name : names)
    tensors.push_back({name, TensorDtype::kU8, {1}, std::span(&value, 1)});
  write_safetensors(path, tensors);
}

class SafetensorsSetTest : public ::testing::Test {
 protected:
  SafetensorsSetTest() {
    shard(folder_ / "m-00001-of-00002.safetensors", {"a", "c"}, 'x');
    shard(folder_ / "m-00002-of-00002.safetensors", {"b"}, 'y');
  }
  fs::path index() const { return folder_ / "m.safetensors.index.json"; }
  std::string error(const std::string& weight_map) {
    put(index(), "{\"metadata\":{\"total_size\":3},\"weight_map\":" + weight_map + "}");
    try {
      const SafetensorsSet set(index());
    } catch (const DataError& caught) {
      return caught.what();
    }
    return "no error";
  }
  static constexpr const char* kMap =
      R"({"a":"m-00001-of-00002.safetensors","b":"m-00002-of-00002.safetensors",)"
      R"("c":"m-00001-of-00002.safetensors"})";
  TempFolder folder_;
};

TEST_F(SafetensorsSetTest, ReadsShards) {
  ASSERT_EQ(error(kMap), "no error");
  for (const fs::path& path : {index(), folder_ / "m.safetensors"}) {
    const SafetensorsSet set(path);
    EXPECT_EQ(set.path(), index());
    EXPECT_THAT(set.names(), ElementsAre("a", "b", "c"));
    EXPECT_TRUE(set.contains("b"));
    EXPECT_EQ(set.info("a").bytes[0], std::byte{'x'});
    EXPECT_EQ(set.info("b").bytes[0], std::byte{'y'});
    EXPECT_EQ(set.info("c").bytes[0], std::byte{'x'});
    EXPECT_THROW(set.info("d"), DataError);
  }
}

TEST_F(SafetensorsSetTest, ReadsASingleFileAndAFolder) {
  shard(folder_ / "diffusion_pytorch_model.safetensors", {"w"}, 'z');
  for (const fs::path& path : {folder_.path(), folder_ / "diffusion_pytorch_model.safetensors"}) {
    const SafetensorsSet set(path);
    EXPECT_THAT(set.names(), ElementsAre("w"));
    EXPECT_EQ(set.info("w").bytes[0], std::byte{'z'});
  }
  try {
    const SafetensorsSet set(folder_ / "other.safetensors");
    FAIL();
  } catch (const DataError& missing) {
    EXPECT_THAT(missing.what(), HasSubstr("other.safetensors.index.json"));
  }
}

TEST_F(SafetensorsSetTest, RefusesBadIndexes) {
  put(folder_.path().parent_path() / "sfumato-outside.safetensors", "");
  for (const char* name :
       {"../sfumato-outside.safetensors", "/etc/x.safetensors", "d/x.safetensors", "..", "",
        "x.bin", "..\\\\x.safetensors", ".safetensors", "a\\u0000.safetensors"})
    EXPECT_THAT(error(std::string("{\"a\":\"") + name + "\"}"), HasSubstr("only plain names"))
        << name;
  fs::remove(folder_.path().parent_path() / "sfumato-outside.safetensors");

  EXPECT_THAT(error("{\"a\":\"gone.safetensors\"}"), HasSubstr("gone.safetensors"));
  EXPECT_THAT(error("{\"a\":1}"), HasSubstr("'a' no file name"));
  EXPECT_THAT(error("[]"), HasSubstr("no weight_map"));
  EXPECT_THAT(error(R"({"a":"m-00002-of-00002.safetensors"})"), HasSubstr("does not hold it"));
  EXPECT_THAT(error(R"({"a":"m-00001-of-00002.safetensors"})"),
              HasSubstr("holds tensor 'c', which the index"));
  EXPECT_THAT(error(R"({"a":"m-00001-of-00002.safetensors","a":"x"})"), HasSubstr("twice"));
  put(index(), "[]");
  EXPECT_THROW(SafetensorsSet{index()}, DataError);
}

TEST_F(SafetensorsSetTest, RefusesATensorInTwoShards) {
  shard(folder_ / "m-00002-of-00002.safetensors", {"a", "b"}, 'y');
  EXPECT_THAT(error(kMap), HasSubstr("holds tensor 'a', which the index"));
}

}  // namespace
}  // namespace sfumato
