#include "sfumato/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <map>

#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "support/shared_folder.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using test::get;
using test::put;
using test::raw;
using test::safetensors_bytes;
using test::TempFolder;
using test::text_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

/// One tensor written by hand, opened.
class OneTensor {
 public:
  OneTensor(const std::string& dtype, std::int64_t count, const std::string& data) {
    const std::string header = "{\"t\":{\"dtype\":\"" + dtype + "\",\"shape\":[" +
                               std::to_string(count) + "],\"data_offsets\":[0," +
                               std::to_string(data.size()) + "]}}";
    // Odd padding, so that the data is at no alignment.
    put(folder_ / "t.safetensors",
        safetensors_bytes(header + (header.size() % 2 ? "" : " "), data));
    file_.emplace(folder_ / "t.safetensors");
  }
  const TensorInfo& info() const { return file_->info("t"); }

 private:
  TempFolder folder_;
  std::optional<SafetensorsFile> file_;
};

template <class T>
std::vector<float> floats(const std::string& dtype, const std::vector<T>& values) {
  return to_float32(OneTensor(dtype, static_cast<std::int64_t>(values.size()), raw(values)).info());
}

template <class T>
std::vector<std::int64_t> integers(const std::string& dtype, const std::vector<T>& values) {
  return to_int64(OneTensor(dtype, static_cast<std::int64_t>(values.size()), raw(values)).info());
}

TEST(Safetensors, ReadsFileWrittenByHand) {
  TempFolder folder;
  const std::string header = R"({"__metadata__":{"format":"pt","made by":"hand é"},)"
                             R"("weight":{"shape":[2,3],"data_offsets":[8,32],"dtype":"F32"},)"
                             R"("step":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                             R"("none":{"dtype":"F16","shape":[0,7],"data_offsets":[8,8]}}   )";
  put(folder / "a.safetensors",
      safetensors_bytes(header, raw<std::int64_t>({-5}) + raw<float>({1, 2, 3, 4, 5, 6.5f})));

  const SafetensorsFile file(folder / "a.safetensors");
  EXPECT_THAT(file.names(), ElementsAre("none", "step", "weight"));
  EXPECT_TRUE(file.contains("step"));
  EXPECT_FALSE(file.contains("steps"));
  EXPECT_EQ(file.metadata(),
            (std::map<std::string, std::string>{{"format", "pt"}, {"made by", "hand é"}}));
  EXPECT_THAT(file.info("weight").shape, ElementsAre(2, 3));
  EXPECT_EQ(file.info("weight").dtype, TensorDtype::kF32);
  EXPECT_EQ(file.info("weight").element_count(), 6);
  EXPECT_THAT(to_float32(file.info("weight")), ElementsAre(1, 2, 3, 4, 5, 6.5f));
  EXPECT_THAT(file.info("step").shape, IsEmpty());
  EXPECT_THAT(to_int64(file.info("step")), ElementsAre(-5));
  EXPECT_THAT(to_float32(file.info("none")), IsEmpty());
  try {
    file.info("wieght");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("a.safetensors"));
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'weight'"));
  }
}

TEST(Safetensors, AcceptsMetadataNullEmptyAndAbsent) {
  TempFolder folder;
  for (const std::string header : {"{\"__metadata__\":null}", "{\"__metadata__\":{}}", "{}"}) {
    put(folder / "a.safetensors", safetensors_bytes(header, ""));
    const SafetensorsFile file(folder / "a.safetensors");
    EXPECT_THAT(file.names(), IsEmpty());
    EXPECT_TRUE(file.metadata().empty());
  }
}

TEST(Safetensors, ConvertsNumbers) {
  EXPECT_THAT(floats<double>("F64", {1.5, -1e300, 0.1}),
              ElementsAre(1.5f, -std::numeric_limits<float>::infinity(), 0.1f));
  EXPECT_THAT(floats<std::uint8_t>("BOOL", {0, 1, 255}), ElementsAre(0, 1, 1));
  EXPECT_THAT(floats<std::int8_t>("I8", {-128, 127}), ElementsAre(-128, 127));
  EXPECT_THAT(floats<std::uint16_t>("U16", {65535}), ElementsAre(65535));
  EXPECT_THAT(floats<std::uint64_t>("U64", {1ull << 63}), ElementsAre(0x1p63f));
  EXPECT_THAT(integers<std::uint8_t>("U8", {0, 255}), ElementsAre(0, 255));
  EXPECT_THAT(integers<std::uint8_t>("BOOL", {2, 0}), ElementsAre(1, 0));
  EXPECT_THAT(integers<std::int16_t>("I16", {-32768}), ElementsAre(-32768));
  EXPECT_THAT(integers<std::int32_t>("I32", {-7}), ElementsAre(-7));
  EXPECT_THAT(integers<std::uint32_t>("U32", {4294967295u}), ElementsAre(4294967295));
  EXPECT_THAT(integers<std::int64_t>("I64", {std::numeric_limits<std::int64_t>::min()}),
              ElementsAre(std::numeric_limits<std::int64_t>::min()));
  EXPECT_THROW(integers<std::uint64_t>("U64", {1ull << 63}), DataError);
  EXPECT_THROW(integers<float>("F32", {1}), DataError);
  EXPECT_THROW(floats<std::uint8_t>("F8_E4M3", {1}), DataError);
  EXPECT_THROW(floats<double>("C64", {1}), DataError);
}

/// Every 16-bit float against the definition sign * 2^e * (1 + m / 2^bits).
void check_all_16_bit(const std::string& dtype, int mantissa_bits, int bias) {
  std::vector<std::uint16_t> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  const std::vector<float> got = floats(dtype, all);
  const int exponent_max = (1 << (15 - mantissa_bits)) - 1;
  for (int i = 0; i < 65536; ++i) {
    const int exponent = (i & 0x7fff) >> mantissa_bits;
    const int mantissa = i & ((1 << mantissa_bits) - 1);
    if (exponent == exponent_max && mantissa != 0) {
      ASSERT_TRUE(std::isnan(got[i])) << i;
      continue;
    }
    const double fraction = std::ldexp(mantissa, -mantissa_bits);
    const double magnitude = exponent == exponent_max ? std::numeric_limits<double>::infinity()
                             : exponent == 0          ? std::ldexp(fraction, 1 - bias)
                                                      : std::ldexp(1 + fraction, exponent - bias);
    ASSERT_EQ(got[i], static_cast<float>(i & 0x8000 ? -magnitude : magnitude)) << i;
    ASSERT_EQ(std::signbit(got[i]), (i & 0x8000) != 0) << i;
  }
}
TEST(Safetensors, ConvertsEveryHalf) { check_all_16_bit("F16", 10, 15); }
TEST(Safetensors, ConvertsEveryBfloat16) { check_all_16_bit("BF16", 7, 127); }

TEST(Safetensors, DtypeNamesAndSizes) {
  const std::map<std::string, int> bits = {
      {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
      {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
      {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
      {"I64", 64},        {"U64", 64}};
  ASSERT_EQ(bits.size(), static_cast<std::size_t>(kTensorDtypes));
  for (const auto& [name, size] : bits) {
    const auto dtype = dtype_from_name(name);
    ASSERT_TRUE(dtype) << name;
    EXPECT_EQ(dtype_name(*dtype), name);
    EXPECT_EQ(dtype_bits(*dtype), size) << name;
  }
  EXPECT_EQ(dtype_bits(TensorDtype::kBF16), 16);
  EXPECT_EQ(dtype_name(TensorDtype::kF8E4M3FNUZ), "F8_E4M3FNUZ");
  EXPECT_EQ(dtype_name(TensorDtype::kU64), "U64");
  EXPECT_FALSE(dtype_from_name("f32"));
}

// The bytes that safetensors 0.8.0 writes for the same tensors (two elements of each dtype).
TEST(Safetensors, WritesWhatTheReferenceWrites) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"uint64":{"dtype":"U64","shape":[2],"data_offsets":[0,16]})"
      R"(,"int64":{"dtype":"I64","shape":[2],"data_offsets":[16,32]},"float64":{"dtype":"F64",)"
      R"("shape":[2],"data_offsets":[32,48]},"complex64":{"dtype":"C64","shape":[2],)"
      R"("data_offsets":[48,64]},"float32":{"dtype":"F32","shape":[2],"data_offsets":[64,72]},)"
      R"("uint32":{"dtype":"U32","shape":[2],"data_offsets":[72,80]},"int32":{"dtype":"I32",)"
      R"("shape":[2],"data_offsets":[80,88]},"float16":{"dtype":"F16","shape":[2],)"
      R"("data_offsets":[88,92]},"uint16":{"dtype":"U16","shape":[2],"data_offsets":[92,96]},)"
      R"("int16":{"dtype":"I16","shape":[2],"data_offsets":[96,100]},"int8":{"dtype":"I8",)"
      R"("shape":[2],"data_offsets":[100,102]},"uint8":{"dtype":"U8","shape":[2],)"
      R"("data_offsets":[102,104]},"bool":{"dtype":"BOOL","shape":[2],"data_offsets":[104,106]}} )";
  ASSERT_EQ(header.size() % 8, 0u);
  const std::map<std::string, TensorDtype> order = {
      {"bool", TensorDtype::kBool},   {"uint8", TensorDtype::kU8},
      {"int8", TensorDtype::kI8},     {"int16", TensorDtype::kI16},
      {"uint16", TensorDtype::kU16},  {"float16", TensorDtype::kF16},
      {"int32", TensorDtype::kI32},   {"uint32", TensorDtype::kU32},
      {"float32", TensorDtype::kF32}, {"complex64", TensorDtype::kC64},
      {"float64", TensorDtype::kF64}, {"int64", TensorDtype::kI64},
      {"uint64", TensorDtype::kU64}};
  std::vector<std::string> data;
  std::vector<TensorInfo> tensors;
  for (const auto& [name, dtype] : order)
    data.emplace_back(static_cast<std::size_t>(dtype_bits(dtype) / 4), name.front());
  for (std::size_t i = 0; const auto& [name, dtype] : order)
    tensors.push_back({name, dtype, {2}, bytes_of(data[i++])});

  TempFolder folder;
  write_safetensors(folder / "a.safetensors", tensors);
  const std::string written = get(folder / "a.safetensors");
  ASSERT_EQ(written.size(), 8 + header.size() + 106);
  EXPECT_EQ(written.substr(8, header.size()), header);
  EXPECT_EQ(written.substr(0, 8), safetensors_bytes(header, "").substr(0, 8));
  EXPECT_EQ(written.substr(8 + header.size()),
            "uuuuuuuuuuuuuuuu"
            "iiiiiiiiiiiiiiii"
            "ffffffffffffffff"
            "cccccccccccccccc"
            "ffffffff"
            "uuuuuuuu"
            "iiiiiiii"
            "ffff"
            "uuuu"
            "iiii"
            "ii"
            "uu"
            "bb");
}

TEST(Safetensors, RewritesGoldenFilesByteForByte) {
  SFUMATO_NEEDS_SHARED("golden");
  TempFolder folder;
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(test::shared_folder() / "golden")) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    const SafetensorsFile file(entry.path());
    EXPECT_FALSE(file.names().empty());
    std::vector<TensorInfo> tensors;
    for (const std::string& name : file.names()) {
      const TensorInfo& info = file.info(name);
      tensors.push_back({name, info.dtype, info.shape, info.bytes});
    }
    write_safetensors(folder / "copy.safetensors", tensors, file.metadata());
    EXPECT_TRUE(get(folder / "copy.safetensors") == get(entry.path())) << entry.path();
  }
  EXPECT_GE(files, 10);
}

TEST(Safetensors, RoundTripProperty) {
  TempFolder folder;
  EXPECT_TRUE(rc::check("what is written is read back", [&] {
    struct Made {
      TensorDtype dtype;
      std::vector<std::int64_t> shape;
      std::string data;
    };
    std::map<std::string, Made> made;
    const auto letters = rc::gen::container<std::string>(
        rc::gen::element('a', 'Z', '.', '"', '\\', '/', '\n', '\t', ' ', '\x01'));
    const int count = *rc::gen::inRange(0, 8);
    for (int i = 0; i < count; ++i) {
      Made tensor;
      tensor.dtype = static_cast<TensorDtype>(*rc::gen::inRange(0, kTensorDtypes));
      tensor.shape =
          *rc::gen::container<std::vector<std::int64_t>>(rc::gen::inRange<std::int64_t>(0, 4));
      if (tensor.shape.size() > 5) tensor.shape.resize(5);
      if (dtype_bits(tensor.dtype) < 8) tensor.shape.push_back(4);  // a whole number of bytes
      std::int64_t bits = dtype_bits(tensor.dtype);
      for (const std::int64_t size : tensor.shape) bits *= size;
      tensor.data = *rc::gen::container<std::string>(static_cast<std::size_t>(bits / 8),
                                                     rc::gen::arbitrary<char>());
      made[*letters + *rc::gen::element<std::string>("", "é", "日本", "😀")] = tensor;
    }
    std::map<std::string, std::string> metadata;
    metadata[*letters] = *letters;

    std::vector<TensorInfo> tensors;
    for (const auto& [name, tensor] : made)
      tensors.push_back({name, tensor.dtype, tensor.shape, bytes_of(tensor.data)});
    write_safetensors(folder / "a.safetensors", tensors, metadata);
    metadata["format"] = "pt";

    const SafetensorsFile file(folder / "a.safetensors");
    RC_ASSERT(file.metadata() == metadata);
    RC_ASSERT(file.names().size() == made.size());
    for (const auto& [name, tensor] : made) {
      const TensorInfo& info = file.info(name);
      RC_ASSERT(info.dtype == tensor.dtype);
      RC_ASSERT(info.shape == tensor.shape);
      RC_ASSERT(text_of(info.bytes) == tensor.data);
    }
    const std::string written = get(folder / "a.safetensors");
    std::uint64_t length = 0;
    std::memcpy(&length, written.data(), 8);
    RC_ASSERT(length % 8 == 0u);
  }));
}

std::string write_error(const std::vector<TensorInfo>& tensors,
                        const std::map<std::string, std::string>& metadata = {}) {
  TempFolder folder;
  try {
    write_safetensors(folder / "bad.safetensors", tensors, metadata);
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("bad.safetensors"));
    EXPECT_TRUE(fs::is_empty(folder.path()));
    return error.what();
  }
  return "no error";
}

TEST(Safetensors, WriterRefusesWhatAReaderWould) {
  const std::string data(8, 'x');
  const auto tensor = [&](std::string name, std::vector<std::int64_t> shape) {
    return TensorInfo{std::move(name), TensorDtype::kF32, std::move(shape), bytes_of(data)};
  };
  EXPECT_THAT(write_error({tensor("a", {3})}), HasSubstr("'a' has 8 bytes"));
  EXPECT_THAT(write_error({tensor("a", {-2})}), HasSubstr("shape [-2]"));
  EXPECT_THAT(write_error({tensor("a", {2}), tensor("a", {1, 2})}), HasSubstr("two tensors"));
  EXPECT_THAT(write_error({tensor("__metadata__", {2})}), HasSubstr("reserved"));
  EXPECT_THAT(write_error({tensor("\xff", {2})}), HasSubstr("UTF-8"));
  EXPECT_THAT(write_error({}, {{"k", "\xc3"}}), HasSubstr("UTF-8"));
  EXPECT_THAT(write_error({tensor("a", std::vector<std::int64_t>(65, 1))}),
              HasSubstr("dimensions"));
  EXPECT_THAT(write_error({TensorInfo{"a", TensorDtype::kF4, {3}, {}}}), HasSubstr("F4"));
}

/// Makes writes beyond `bytes` fail, as a full disk does.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit old_{};
};

TEST(Safetensors, FailedWriteLeavesTheOldFile) {
  TempFolder folder;
  const fs::path path = folder / "a.safetensors";
  write_safetensors(path, {});
  const std::string before = get(path);
  const std::string big(100'000, 'x');
  const TensorInfo tensor{"t", TensorDtype::kU8, {100'000}, bytes_of(big)};
  {
    FileSizeLimit limit(50'000);
    try {
      write_safetensors(path, std::span(&tensor, 1));
      FAIL() << "the write should not have fitted";
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr("cannot write '" + path.string() + "'"));
    }
  }
  EXPECT_EQ(get(path), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
  write_safetensors(path, std::span(&tensor, 1), {}, 0600);
  EXPECT_EQ(SafetensorsFile(path).info("t").bytes.size(), big.size());
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_THROW(write_safetensors(folder / "no" / "a.safetensors", {}), DataError);
}

}  // namespace
}  // namespace sfumato
