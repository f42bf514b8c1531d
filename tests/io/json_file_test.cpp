#include "sfumato/io/json_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using nlohmann::json;
using test::get;
using test::put;
using test::TempFolder;
using ::testing::HasSubstr;

std::string error(const std::string& text) {
  TempFolder folder;
  put(folder / "a.json", text);
  try {
    read_json(folder / "a.json");
  } catch (const DataError& caught) {
    EXPECT_THAT(caught.what(), HasSubstr("a.json'"));
    return caught.what();
  }
  return "no error";
}

TEST(JsonFile, ReadsEveryKindOfValue) {
  const std::string text =
      R"({"a":[1,-2,3.5,true,null,"x\u00e9\n",[],{}],"b":{"c":{"d":[[1],{"e":2}]}},)"
      R"("big":18446744073709551615})";
  EXPECT_EQ(parse_json(text, "text"), json::parse(text));
  EXPECT_EQ(parse_json(" 7 ", "text"), json(7));
}

TEST(JsonFile, ErrorsNameThePlace) {
  EXPECT_THAT(error("{\n  \"a\": 1,\n  \"b\": tru\n}"), HasSubstr("line 3, column 11"));
  EXPECT_THAT(error("{\"a\":1,\n \"b\":2, \"a\":3}"), HasSubstr("key 'a' stands twice"));
  EXPECT_THAT(error("{\"a\":1,\n \"b\":2, \"a\":3}"), HasSubstr("line 2, column 11"));
  EXPECT_THAT(error("{\"x\":{\"a\":1,\"\\u0061\":2}}"), HasSubstr("key 'a' stands twice"));
  EXPECT_EQ(error("{\"x\":{\"a\":1},\"y\":{\"a\":1}}"), "no error");
  EXPECT_THAT(error(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("{}x"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("[1,]"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("// c\n1"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("1e999"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("NaN"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("\"\xff\""), HasSubstr("not valid JSON"));
  EXPECT_THAT(error(std::string("{}\0{}", 5)), HasSubstr("NUL byte"));
}

// What Python's json module writes and JSON does not have: known in others' files alone.
TEST(JsonFile, PythonsConstantsAreTextsInFilesOfPython) {
  const std::string text =
      R"({"a": -Infinity, "b": [Infinity,NaN], "c": "x \" NaN", "NaN": 1, "d\\": NaN,)"
      R"( "e": -1.5e-3, "f": "-Infinity"})";
  TempFolder folder;
  put(folder / "a.json", text);
  EXPECT_EQ(read_python_json(folder / "a.json"),
            json::parse(R"({"a": "-Infinity", "b": ["Infinity", "NaN"], "c": "x \" NaN",)"
                        R"( "NaN": 1, "d\\": "NaN", "e": -1.5e-3, "f": "-Infinity"})"));
  EXPECT_THAT(error(text), HasSubstr("not valid JSON"));
  for (const char* wrong :
       {"[NaNs]", "[+Infinity]", "[- Infinity]", "[nan]", "[inf]", "[1Infinity]"}) {
    put(folder / "a.json", wrong);
    EXPECT_THROW(read_python_json(folder / "a.json"), DataError) << wrong;
  }
  put(folder / "a.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  try {
    read_python_json(folder / "a.json");
    FAIL() << "a pointer was read";
  } catch (const DataError& caught) {
    EXPECT_THAT(caught.what(), HasSubstr("git-lfs pointer"));
  }
}

TEST(JsonFile, LimitsDepth) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(error(nested(kMaxJsonDepth)), "no error");
  EXPECT_THAT(error(nested(kMaxJsonDepth + 1)), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(error(std::string(1'000'000, '[')), HasSubstr("nested deeper than 64"));
}

TEST(JsonFile, RefusesGiantFilesUnread) {
  TempFolder folder;
  put(folder / "big.json", "{}");
  std::filesystem::resize_file(folder / "big.json", std::uintmax_t{1} << 40);  // sparse
  EXPECT_THROW(read_json(folder / "big.json"), DataError);
  EXPECT_THROW(read_json(folder / "missing.json"), DataError);
}

TEST(JsonFile, WritesSortedOrInOrder) {
  TempFolder folder;
  write_json_atomic(folder / "a.json", json{{"b", 1}, {"a", "é"}});
  EXPECT_EQ(get(folder / "a.json"), "{\n  \"a\": \"é\",\n  \"b\": 1\n}\n");
  write_json_atomic(folder / "a.json", nlohmann::ordered_json{{"b", 1}, {"a", 0.1}}, -1, 0600);
  EXPECT_EQ(get(folder / "a.json"), "{\"b\":1,\"a\":0.1}\n");
  struct stat status {};
  ASSERT_EQ(::stat((folder / "a.json").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_THROW(write_json_atomic(folder / "a.json", json("\xff")), DataError);
  EXPECT_EQ(get(folder / "a.json"), "{\"b\":1,\"a\":0.1}\n");
  EXPECT_THROW(write_json_atomic(folder / "no" / "a.json", json(1)), DataError);
}

}  // namespace
}  // namespace sfumato
