// Pages of releases that show more than text, and what is said to mend a release.
#include "run/older_run.h"
#include "run/verified_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::IsEmpty;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

using FalsePage = Verification;

// Settings are copied from the page before it is compared, and those of another version need not be
// understood: they must be text.
TEST_F(FalsePage, NoHtmlPassesForSettings) {
  start("run", kChanges);
  const auto shown = [&](const std::string& what, const std::string& from, const std::string& to) {
    expect_caught(what, "privacy card", "HTML among its settings", [&](const fs::path& run) {
      const fs::path page = run / "release/report.html";
      std::string text = read_file(page);
      const std::size_t at = text.find(from, text.rfind("<h2>Settings</h2>"));
      ASSERT_NE(at, std::string::npos) << from;
      write_file_atomic(page, text.replace(at, from.size(), to));
    });
  };
  shown("raw quotes", "[&quot;gaussian:1:50&quot;]", "[\"gaussian:1:50\"]");
  make_older(folder / "run", folder / "store", "0.0.1");
  ASSERT_THAT(verify("run").problems(), IsEmpty());
  shown("element", "noise_multiplier: 1", "noise_multiplier: 1<h1>ε = 0.01</h1>");
  shown("other entities", "noise_multiplier: 1", "noise_multiplier: 1&#10;ε = 0.01");
}

TEST_F(FalsePage, TheRemedyResumesTheRunItself) {
  start("run", kChanges);
  const std::string run = (folder / "tampered").string();
  const std::string remedy = "--config " + run + "/config.yaml --resume run.dir=" + run + "`";
  expect_caught("weights", "weights", remedy, [&](const fs::path& copied) {
    edit_card(copied, [](Json& card) { card["weights_sha256"] = std::string(64, '0'); });
    rewrite_pages(copied);
  });
  for (const char* name : {"README.md", "unet/config.json", "scheduler/scheduler_config.json"})
    expect_caught(name, "release files", remedy,
                  [&](const fs::path& copied) { fs::remove(copied / "release" / name); });
}

}  // namespace
}  // namespace sfumato
