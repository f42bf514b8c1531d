#include "sfumato/data/labelled_source.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::error_message;
using ::testing::AllOf;
using ::testing::HasSubstr;

class LabelledArrays : public testing::TestWithParam<bool> {
 protected:
  static std::string npy(const std::string& type, const std::string& shape,
                         const std::string& data) {
    std::string header =
        fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", type, shape);
    header.resize(117, ' ');
    header += '\n';
    return std::string("\x93NUMPY\x01\x00", 8) + '\x76' + '\0' + header + data;
  }
  /// Two images of 4 x 4, of floats or of bytes, of which the second has this label.
  SourceRequest arrays(int64_t label) const {
    const bool floats = GetParam();
    write_file_atomic(folder_ / "x.npy", npy(floats ? "<f4" : "|u1", "(2, 4, 4, 1)",
                                             std::string(floats ? 128 : 32, '\0')));
    std::string labels(16, '\0');
    for (std::size_t i = 0; i < 8; ++i) labels[8 + i] = static_cast<char>(label >> (8 * i) & 255);
    write_file_atomic(folder_ / "y.npy", npy("<i8", "(2,)", labels));
    SourceRequest request;
    request.source = folder_ / "x.npy";
    request.labels = folder_ / "y.npy";
    return request;
  }
  static std::size_t classes_of(const SourceRequest& request) {
    LabelledSource source(request);
    Image image;
    for (int64_t label = 0; source.next(image, label);) {
    }
    return source.class_names().size();
  }
  test::TempFolder folder_;
};

TEST_P(LabelledArrays, CountClassesUpToTenThousand) {
  EXPECT_EQ(classes_of(arrays(9999)), 10'000u);
  for (const int64_t label : {10'000, 999'999})
    EXPECT_THAT(error_message<DataError>([&] { classes_of(arrays(label)); }),
                AllOf(HasSubstr("x.npy"), HasSubstr(fmt::format("label {}", label)),
                      HasSubstr("--no-classes")));
  SourceRequest without = arrays(999'999);
  without.labels.clear();
  without.with_classes = false;
  EXPECT_EQ(classes_of(without), 0u);
}

INSTANTIATE_TEST_SUITE_P(OfFloatsAndBytes, LabelledArrays, testing::Bool());

}  // namespace
}  // namespace sfumato
