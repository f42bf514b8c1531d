#include "sfumato/report/metrics_log.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

TEST(MetricsLog, WritesOneLinePerStep) {
  test::TempFolder folder;
  const auto path = folder / "metrics.jsonl";
  write_file_atomic(path, "", 0644);  // a file that was there keeps no wider mode
  MetricsLog log(path);
  log.append(7, {{"loss", 0.1},
                 {"a\"b", 1e-300},
                 {"nan", std::nan("")},
                 {"inf", std::numeric_limits<double>::infinity()}});
  log.append(8, {});
  EXPECT_EQ(read_file(path),
            "{\"step\":7,\"loss\":0.1,\"a\\\"b\":1e-300,\"nan\":null,\"inf\":null}\n"
            "{\"step\":8}\n");
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST(MetricsLog, NumbersKeepFullPrecision) {
  test::TempFolder folder;
  MetricsLog log(folder / "m.jsonl");
  for (const double value : {1.0 / 3, 5e-324, 1.7976931348623157e308, -0.1, 123456789012345680.0}) {
    log.append(1, {{"v", value}});
    const std::string all = read_file(folder / "m.jsonl");
    const std::size_t start = all.rfind('{');
    EXPECT_EQ(nlohmann::json::parse(all.substr(start)).at("v").get<double>(), value);
  }
}

TEST(MetricsLog, ContinuesAfterACrash) {
  test::TempFolder folder;
  const auto path = folder / "m.jsonl";
  const std::string torn(10'000, 'x');  // longer than one read
  write_file_atomic(path, "{\"step\":1}\n{\"step\":2}\n{\"st" + torn);
  MetricsLog(path).append(3, {});
  EXPECT_EQ(read_file(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  MetricsLog(path).append(4, {});
  EXPECT_EQ(read_file(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4}\n");
  write_file_atomic(path, "{\"st");
  MetricsLog(path).append(5, {});
  EXPECT_EQ(read_file(path), "{\"step\":5}\n");
}

TEST(MetricsLog, StepsThatWereLostMoveAside) {
  test::TempFolder folder;
  const auto path = folder / "m.jsonl", lost = folder / "m_lost.jsonl";
  const std::string first = "{\"step\":1,\"v\":1}\n{\"step\":2,\"v\":2}\n";
  const std::string beyond = "{\"step\":3,\"v\":3}\n{\"step\":10,\"v\":4}\n";
  write_file_atomic(path, first + beyond + "{\"step\":1");
  MetricsLog(path, 3).append(3, {{"v", 5}});
  EXPECT_EQ(read_file(path), first + "{\"step\":3,\"v\":5}\n");
  EXPECT_EQ(read_file(lost), beyond);
  struct stat status {};
  for (const auto& file : {path, lost}) {
    ASSERT_EQ(::stat(file.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u);
  }
  // Nothing is lost: nothing changes.
  MetricsLog(path, 4).append(4, {});
  EXPECT_EQ(read_file(path), first + "{\"step\":3,\"v\":5}\n{\"step\":4}\n");
  EXPECT_EQ(read_file(lost), beyond);
  // Back to the start, the file staying there.
  MetricsLog(path, 1);
  EXPECT_EQ(read_file(path), "");
  EXPECT_EQ(read_file(lost), beyond + first + "{\"step\":3,\"v\":5}\n{\"step\":4}\n");
}

TEST(MetricsLog, LinesThatWereMovedAreNotMovedTwice) {
  test::TempFolder folder;
  const auto path = folder / "m.jsonl", lost = folder / "m_lost.jsonl";
  // As a crash leaves it between the two files.
  write_file_atomic(path, "{\"step\":1}\n{\"step\":2,\"seconds\":0.25}\n");
  write_file_atomic(lost, "{\"step\":7}\n{\"step\":2,\"seconds\":0.25}\n");
  MetricsLog(path, 2);
  EXPECT_EQ(read_file(path), "{\"step\":1}\n");
  EXPECT_EQ(read_file(lost), "{\"step\":7}\n{\"step\":2,\"seconds\":0.25}\n");
}

TEST(MetricsLog, AFileWhoseStepsRanBackwardsIsPutInOrder) {
  test::TempFolder folder;
  const auto path = folder / "m.jsonl";
  write_file_atomic(path,
                    "{\"step\":1,\"v\":0}\n{\"step\":2}\n{\"step\":13}\nnot a line\n"
                    "{\"step\":1,\"v\":1}\n{\"step\":3}\n");
  MetricsLog(path, 20).append(20, {});
  EXPECT_EQ(read_file(path), "{\"step\":1,\"v\":1}\n{\"step\":3}\n{\"step\":20}\n");
  EXPECT_EQ(read_file(folder / "m_lost.jsonl"),
            "{\"step\":1,\"v\":0}\n{\"step\":2}\n{\"step\":13}\nnot a line\n");
}

TEST(MetricsLog, NamesTheFileInErrors) { EXPECT_THROW(MetricsLog("/proc/no/m.jsonl"), DataError); }

}  // namespace
}  // namespace sfumato
