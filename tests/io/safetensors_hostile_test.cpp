// Files that are damaged or made to hurt: each must end in a DataError that names file and defect.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "sfumato/io/safetensors.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::put;
using test::safetensors_bytes;
using test::TempFolder;
using test::text_of;
using ::testing::HasSubstr;

std::string open_error(const std::string& bytes) {
  static TempFolder folder;
  put(folder / "bad.safetensors", bytes);
  try {
    const SafetensorsFile file(folder / "bad.safetensors");
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("bad.safetensors"));
    return error.what();
  }
  return "no error";
}

/// `header` over 16 bytes of data.
std::string header_error(const std::string& header) {
  return open_error(safetensors_bytes(header, std::string(16, 'x')));
}

/// A single tensor with these fields as written.
std::string entry_error(const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
  return header_error("{\"t\":{\"dtype\":" + dtype + ",\"shape\":" + shape +
                      ",\"data_offsets\":" + offsets + "}}");
}

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + rest;
}

constexpr const char* kGood = R"({"t":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";

TEST(SafetensorsHostile, TheUnharmedFileOpens) { EXPECT_EQ(header_error(kGood), "no error"); }

TEST(SafetensorsHostile, Length) {
  EXPECT_THAT(open_error(""), HasSubstr("0 bytes are too few"));
  EXPECT_THAT(open_error("1234567"), HasSubstr("7 bytes are too few"));
  EXPECT_THAT(open_error(with_length(0, "")), HasSubstr("'{'"));
  EXPECT_THAT(open_error(with_length(3, "{}")), HasSubstr("the file ends after 2"));
  EXPECT_THAT(open_error(with_length(100'000'000, "{}")), HasSubstr("the file ends after 2"));
  EXPECT_THAT(open_error(with_length(100'000'001, "{}")), HasSubstr("more than the format's"));
  EXPECT_THAT(open_error(with_length(~0ull, "{}")), HasSubstr("more than the format's"));
  EXPECT_THAT(open_error(with_length(~0ull - 7, "{}")), HasSubstr("more than the format's"));
}

TEST(SafetensorsHostile, OtherFilesAreNamed) {
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, '0') +
      "\nsize 143000000\n";
  EXPECT_THAT(open_error(pointer), HasSubstr("git-lfs pointer"));
  EXPECT_THAT(open_error(pointer), HasSubstr("git lfs pull"));
  EXPECT_THAT(open_error("PK\x03\x04\x14\x08\x08\x08 archive/data.pkl"), HasSubstr("zip archive"));
  EXPECT_THAT(open_error("<!DOCTYPE html><html>"), HasSubstr("web page"));
  EXPECT_THAT(open_error("Entry not found"), HasSubstr("a text"));
}

TEST(SafetensorsHostile, EveryTruncationIsNoticed) {
  const std::string whole = safetensors_bytes(kGood, std::string(16, 'x'));
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(open_error(whole.substr(0, size)), "no error") << size;
}

TEST(SafetensorsHostile, Syntax) {
  EXPECT_THAT(header_error(" {}"), HasSubstr("does not start with '{'"));
  EXPECT_THAT(header_error("[]"), HasSubstr("does not start with '{'"));
  EXPECT_THAT(header_error("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(header_error("{}{}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(header_error(std::string(kGood) + ","), HasSubstr("not valid JSON"));
  EXPECT_THAT(header_error("{\"a\xff\":1}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(header_error("{\"\xc0\xaf\":1}"), HasSubstr("not valid JSON"));      // overlong
  EXPECT_THAT(header_error("{\"\xed\xa0\x80\":1}"), HasSubstr("not valid JSON"));  // surrogate
  EXPECT_THAT(header_error("{\"\\ud800\":1}"), HasSubstr("not valid JSON"));       // half a pair
  EXPECT_THAT(header_error(std::string(kGood) + '\0'), HasSubstr("NUL byte"));
  EXPECT_THAT(header_error(std::string(kGood) + '\0' + "{\"hidden\":"), HasSubstr("NUL byte"));
  EXPECT_THAT(header_error("{/**/}"), HasSubstr("not valid JSON"));
}

TEST(SafetensorsHostile, Duplicates) {
  const std::string entry = R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})";
  EXPECT_THAT(header_error("{\"t\":" + entry + ",\"t\":" + entry + "}"),
              HasSubstr("'t' stands twice"));
  EXPECT_THAT(header_error("{\"t\":" + entry + ",\"\\u0074\":" + entry + "}"),
              HasSubstr("'t' stands twice"));
  EXPECT_THAT(header_error(R"({"__metadata__":{},"__metadata__":{}})"), HasSubstr("stands twice"));
  EXPECT_THAT(header_error(R"({"__metadata__":null,"__metadata__":null})"), HasSubstr("twice"));
  EXPECT_THAT(header_error(R"({"__metadata__":{"a":"1","a":"2"}})"), HasSubstr("'a' stands twice"));
  for (const char* twice : {R"("dtype":"F32")", R"("shape":[4])", R"("data_offsets":[0,16])"})
    EXPECT_THAT(header_error(R"({"t":{"dtype":"F32","shape":[4],"data_offsets":[0,16],)" +
                             std::string(twice) + "}}"),
                HasSubstr("twice"));
}

TEST(SafetensorsHostile, Entries) {
  for (const char* value : {"1", "-1", "1.5", "null", "true", "\"F32\"", "[]", "[{}]"})
    EXPECT_THAT(header_error(std::string("{\"t\":") + value + "}"), HasSubstr("must be an object"));
  EXPECT_THAT(header_error(R"({"t":{}})"), HasSubstr("has no 'dtype'"));
  EXPECT_THAT(header_error(R"({"t":{"dtype":"F32","data_offsets":[0,16]}})"),
              HasSubstr("has no 'shape'"));
  EXPECT_THAT(header_error(R"({"t":{"dtype":"F32","shape":[4]}})"),
              HasSubstr("has no 'data_offsets'"));
  EXPECT_THAT(header_error(R"({"t":{"dtype":"F32","shape":[4],"offsets":[0,16]}})"),
              HasSubstr("unknown field 'offsets'"));
  EXPECT_THAT(entry_error("\"F33\"", "[4]", "[0,16]"), HasSubstr("unknown dtype 'F33'"));
  EXPECT_THAT(entry_error("\"\\u001b[31m\"", "[4]", "[0,16]"), HasSubstr("'\\x1b[31m'"));
  EXPECT_THAT(entry_error("32", "[4]", "[0,16]"), HasSubstr("must be a string"));
  EXPECT_THAT(entry_error("[\"F32\"]", "[4]", "[0,16]"), HasSubstr("must be a string"));
}

TEST(SafetensorsHostile, Shapes) {
  for (const char* shape : {"4", "{}", "null", "\"4\"", "false"})
    EXPECT_THAT(entry_error("\"F32\"", shape, "[0,16]"), HasSubstr("must be an array")) << shape;
  for (const char* shape : {"[-4]", "[4.0]", "[4e0]", "[\"4\"]", "[null]", "[[4]]", "[{}]",
                            "[true]", "[-0]", "[18446744073709551616]"})
    EXPECT_THAT(entry_error("\"F32\"", shape, "[0,16]"), HasSubstr("must hold whole numbers"))
        << shape;
  EXPECT_THAT(entry_error("\"F32\"", "[9223372036854775808]", "[0,16]"), HasSubstr("the size"));
  for (const char* shape :
       {"[4294967296,4294967296]", "[9223372036854775807,2]", "[4611686018427387905]",
        "[0,4294967296,4294967296]", "[2305843009213693956]"})
    EXPECT_THAT(entry_error("\"F32\"", shape, "[0,16]"), HasSubstr("representable")) << shape;
  for (const char* shape : {"[3]", "[5]", "[]", "[0]", "[2,3]", "[4,0]"})
    EXPECT_THAT(entry_error("\"F32\"", shape, "[0,16]"), HasSubstr("takes")) << shape;
  EXPECT_THAT(entry_error("\"F4\"", "[31]", "[0,16]"), HasSubstr("representable"));
  EXPECT_EQ(entry_error("\"F4\"", "[32]", "[0,16]"), "no error");
}

TEST(SafetensorsHostile, Offsets) {
  for (const char* offsets : {"16", "{}", "null"})
    EXPECT_THAT(entry_error("\"F32\"", "[4]", offsets), HasSubstr("must be an array"));
  for (const char* offsets : {"[]", "[0]"})
    EXPECT_THAT(entry_error("\"F32\"", "[4]", offsets), HasSubstr("two numbers"));
  for (const char* offsets :
       {"[0,16,16]", "[-0,16]", "[0,16.0]", "[0,\"16\"]", "[[0,16]]", "[0,18446744073709551616]"})
    EXPECT_THAT(entry_error("\"F32\"", "[4]", offsets), HasSubstr("two whole numbers")) << offsets;
  EXPECT_THAT(entry_error("\"F32\"", "[4]", "[16,0]"), HasSubstr("end before they begin"));
  EXPECT_THAT(entry_error("\"F32\"", "[4]", "[0,17]"), HasSubstr("beyond the 16 bytes"));
  EXPECT_THAT(entry_error("\"F32\"", "[4]", "[18446744073709551600,18446744073709551615]"),
              HasSubstr("beyond"));
  EXPECT_THAT(entry_error("\"F32\"", "[3]", "[4,16]"), HasSubstr("hole from byte 0"));
  EXPECT_THAT(entry_error("\"F32\"", "[3]", "[0,12]"), HasSubstr("4 bytes after the last tensor"));
  const auto two = [](const std::string& a, const std::string& b) {
    return header_error(R"({"a":{"dtype":"U8","shape":)" + a + R"(},"b":{"dtype":"U8","shape":)" +
                        b + "}}");
  };
  EXPECT_EQ(two(R"([8],"data_offsets":[8,16])", R"([8],"data_offsets":[0,8])"), "no error");
  EXPECT_THAT(two(R"([9],"data_offsets":[0,9])", R"([8],"data_offsets":[8,16])"),
              HasSubstr("'b' has data_offsets [8, 16], which overlap"));
  EXPECT_THAT(two(R"([16],"data_offsets":[0,16])", R"([16],"data_offsets":[0,16])"),
              HasSubstr("overlap"));
  EXPECT_THAT(two(R"([7],"data_offsets":[0,7])", R"([8],"data_offsets":[8,16])"),
              HasSubstr("hole from byte 7"));
  EXPECT_THAT(two(R"([16],"data_offsets":[0,16])", R"([0],"data_offsets":[8,8])"),
              HasSubstr("overlap"));
  EXPECT_THAT(header_error("{}"), HasSubstr("16 bytes after the last tensor"));
}

TEST(SafetensorsHostile, Metadata) {
  for (const char* metadata : {"[]", "1", "\"pt\"", "true", "{\"a\":1}", "{\"a\":null}",
                               "{\"a\":{}}", "{\"a\":[\"b\"]}", "{\"a\":-1}", "{\"a\":1.5}"})
    EXPECT_THAT(header_error(std::string("{\"__metadata__\":") + metadata + "}"),
                HasSubstr("__metadata__ must map strings to strings"))
        << metadata;
}

TEST(SafetensorsHostile, Bombs) {
  const std::string deep(1'000'000, '[');
  EXPECT_THAT(header_error("{\"t\":" + deep), HasSubstr("must be an object"));
  EXPECT_THAT(entry_error("\"F32\"", deep, "[0,16]"), HasSubstr("must hold whole numbers"));
  EXPECT_THAT(header_error("{\"__metadata__\":" + deep), HasSubstr("__metadata__"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(header_error(objects), HasSubstr("unknown field 'a'"));

  std::string ones = "[1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  EXPECT_THAT(entry_error("\"F32\"", ones + "]", "[0,16]"), HasSubstr("more than 64 dimensions"));

  std::string keys = "{\"__metadata__\":{\"x\":\"\"";
  for (int i = 0; i < 1'000'000; ++i) keys += ",\"" + std::to_string(i) + "\":\"\"";
  EXPECT_THAT(header_error(keys + "}}"), HasSubstr("more than 1000000 keys"));
  std::string many =
      "{\"x\":" + std::string(R"({"dtype":"U8","shape":[16],"data_offsets":[0,16]})");
  for (int i = 0; i < 1'000'000; ++i)
    many += ",\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(header_error(many + "}"), HasSubstr("more than 1000000 tensors"));

  const std::string long_name(1'000'000, 'n');
  EXPECT_LT(header_error("{\"" + long_name + "\":1}").size(), 1000u);
}

/// Touches all that a file offers; the sanitizers and the asserts see to the rest.
void use(const SafetensorsFile& file, std::size_t file_size) {
  std::uint64_t total = 0;
  std::uint64_t sum = 0;
  for (const std::string& name : file.names()) {
    const TensorInfo& info = file.info(name);
    total += info.bytes.size();
    for (const std::byte b : info.bytes) sum += static_cast<std::uint64_t>(b);
    ASSERT_EQ(static_cast<std::uint64_t>(info.element_count()) * dtype_bits(info.dtype),
              info.bytes.size() * 8);
    try {
      to_float32(info);
      to_int64(info);
    } catch (const DataError&) {
    }
  }
  ASSERT_LE(total + 8, file_size);
  ASSERT_LE(sum, total * 255);
}

TEST(SafetensorsHostile, MutationsLoadOrAreRefused) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,3],)"
      R"("data_offsets":[8,32]},"b":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("c\u00e9":{"dtype":"BF16","shape":[3,1],"data_offsets":[32,38]}}    )";
  const std::string good = safetensors_bytes(header, std::string(38, '\x41'));
  const std::string tokens = "{}[]\",:0123456789-+.eE\\u \n\x80\xff\x7f";
  TempFolder folder;
  std::mt19937 random(20240229);
  const auto below = [&](std::size_t n) { return random() % n; };
  int loaded = 0;
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    for (std::size_t edits = 1 + below(3); edits > 0; --edits) {
      const std::size_t at = below(bytes.size());
      switch (below(5)) {
        case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8))); break;
        case 1: bytes[at] = static_cast<char>(below(256)); break;
        case 2: bytes[at] = tokens[below(tokens.size())]; break;
        case 3: bytes.erase(at, 1 + below(4)); break;
        default: bytes.insert(at, bytes.substr(below(bytes.size()), below(20))); break;
      }
    }
    put(folder / "m.safetensors", bytes);
    try {
      use(SafetensorsFile(folder / "m.safetensors"), bytes.size());
      ++loaded;
    } catch (const DataError& error) {
      ASSERT_THAT(error.what(), HasSubstr("m.safetensors"));
      ++refused;
    }
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(loaded, 50);  // changes of data bytes, names and padding are legal
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace sfumato
