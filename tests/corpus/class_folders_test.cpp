#include "corpus/class_folders.h"

#include <gmock/gmock.h>

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// What pandas.read_csv gives back otherwise than it is written.
TEST(NamesInCsv, ThatPandasReadsOtherwise) {
  EXPECT_THAT(names_misread_in_csv({"NA", "na", "cat", "None", "none", "null", "nan", "N/A", ""}),
              ElementsAre("NA", "None", "null", "nan", "N/A"));
  // A column of numbers becomes one of integers, or, with a missing value, of floats.
  EXPECT_THAT(names_misread_in_csv({"1", "02", "3.0", "1e3"}), ElementsAre("02", "3.0", "1e3"));
  EXPECT_THAT(names_misread_in_csv({"01", "02", "NA"}), ElementsAre("01", "02", "NA"));
  EXPECT_THAT(names_misread_in_csv({"01", "02", "cat"}), IsEmpty());
  EXPECT_THAT(names_misread_in_csv({"0", "1", "10"}), IsEmpty());
  EXPECT_THAT(names_misread_in_csv({}), IsEmpty());
}

}  // namespace
}  // namespace sfumato
