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

TEST(MetricsLog, NamesTheFileInErrors) { EXPECT_THROW(MetricsLog("/proc/no/m.jsonl"), DataError); }

}  // namespace
}  // namespace sfumato
