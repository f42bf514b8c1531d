// Tables of names: every enumerator has one name, its own.
#include "sfumato/core/choices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "sfumato/core/error.h"
#include "support/error_message.h"
#include "support/every_name.h"

namespace sfumato {
namespace {

using test::error_message;
using ::testing::ElementsAre;
using ::testing::StrEq;

TEST(Choices, EveryEnumeratorHasItsOwnName) {
  // Those of reports are named in tests/features and tests/audit.
  test::expect_all_named<SourceFormat, DamagedPictures, DepthRule, Clipping, Adjacency, Accountant,
                         Prediction, BetaSchedule, OptimizerKind, RateDecay, AlgorithmPolicy,
                         ComputeDevice, DeviceChoice, Precision, Sampler, TimestepSpacing,
                         DdpmVariance, CorpusFormat, GanLoss>();
}

TEST(EnumNames, NothingElseIsTaken) {
  for (const char* word : {"", "no such name", "kFlat", "FLAT", "flat "}) {
    EXPECT_FALSE(find_enum<Clipping>(word)) << word;
    EXPECT_THROW(parse_enum<Clipping>(word), UsageError) << word;
  }
  EXPECT_THROW(to_string(static_cast<Clipping>(test::kMostEnumerators)), std::logic_error);
}

TEST(EnumNames, AnUnknownWordIsToldWhatThereIs) {
  EXPECT_THAT(names_of<Clipping>(), ElementsAre("flat", "per_layer", "automatic"));
  EXPECT_THAT(error_message<UsageError>([] { parse_enum<Clipping>("per-layer"); }),
              StrEq("clipping 'per-layer' is none of flat, per_layer, automatic; did you mean "
                    "'per_layer'?"));
  EXPECT_THAT(error_message<UsageError>([] { parse_enum<Accountant>("moments"); }),
              StrEq("accountant 'moments' is none of rdp, pld"));
}

}  // namespace
}  // namespace sfumato
