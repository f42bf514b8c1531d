// Which archives a source stands for: each once, whatever patterns and links say.
#include "data/archive_fixture.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace test;

class ArchivesOfASource : public PrepareArchive {
 protected:
  ArchivesOfASource() {
    options.num_classes = 2;
    put_tar("shards/0.tar", {{"1.png", flat_png(1)}, {"1.cls", "1"}});
    put_tar("shards/1.tar", {{"1.png", flat_png(2)}, {"1.cls", "1"}});
  }
  std::string refused(const std::string& source) {
    options.source = folder / source;
    return data_error();
  }
  std::string place(const std::string& name) const { return "'" + (folder / name).string() + "'"; }
};

TEST_F(ArchivesOfASource, OneThatTwoPatternsStandForIsRefused) {
  for (const bool deduplicate : {true, false}) {
    options.deduplicate = deduplicate;
    EXPECT_THAT(
        refused("shards/{*,1}.tar"),
        AllOf(HasSubstr(place("shards/1.tar") + " would be prepared twice"),
              HasSubstr(place("shards/*.tar")), HasSubstr("so does " + place("shards/1.tar")),
              HasSubstr("data.source"), Not(HasSubstr("0.tar"))));
  }
  EXPECT_THAT(refused("shards/{0*,[0-1]}.tar"),
              AllOf(HasSubstr(place("shards/0.tar") + " would be"),
                    HasSubstr(place("shards/0*.tar")), HasSubstr(place("shards/[0-1].tar"))));
  EXPECT_THAT(refused("shards/{0,1,0}.tar"),
              HasSubstr(place("shards/0.tar") + " stands for it twice"));
  options.source = folder / "shards/{0,1}.tar";
  EXPECT_EQ(again().kept, 2);
}

TEST_F(ArchivesOfASource, OneWithSeveralNamesIsRefused) {
  std::filesystem::create_directories(folder / "other");
  std::filesystem::create_symlink(folder / "shards/1.tar", folder / "other/linked.tar");
  EXPECT_THAT(refused("{shards,other}/*.tar"),
              AllOf(HasSubstr(place("shards/1.tar") + " would be prepared twice"),
                    HasSubstr(place("other/*.tar")),
                    HasSubstr("the second time as " + place("other/linked.tar"))));
  std::filesystem::create_hard_link(folder / "shards/0.tar", folder / "shards/2.tar");
  for (const char* source : {"shards/*.tar", "shards"})
    EXPECT_THAT(refused(source),
                AllOf(HasSubstr(place("shards/0.tar") + " would be prepared twice"),
                      HasSubstr("the second time as " + place("shards/2.tar"))))
        << source;
  // A copy is another file; what it holds is found by its pixels.
  std::filesystem::remove(folder / "shards/2.tar");
  std::filesystem::copy_file(folder / "shards/0.tar", folder / "shards/2.tar");
  options.source = folder / "shards";
  const PrepareReport report = again();
  EXPECT_EQ(report.kept, 2);
  EXPECT_EQ(report.duplicates, 1);
}

}  // namespace
}  // namespace sfumato
