#include "src/data/user_bound.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "io/image_bytes.h"
#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

const std::string kUserKey(32, 'k');

std::vector<std::vector<std::string>> parse(const std::string& text) {
  CsvReader reader(text, "u.csv");
  std::vector<std::vector<std::string>> records;
  for (std::vector<std::string> fields; reader.next(fields);) records.push_back(fields);
  return records;
}

TEST(Csv, Rfc4180) {
  EXPECT_THAT(parse("a,b\r\nc,d"), ElementsAre(ElementsAre("a", "b"), ElementsAre("c", "d")));
  EXPECT_THAT(parse("\"x, \"\"y\"\"\n\",b\n\n\nc,\n"),
              ElementsAre(ElementsAre("x, \"y\"\n", "b"), ElementsAre("c", "")));
  EXPECT_THAT(parse("a,\"b\"\r\n"), ElementsAre(ElementsAre("a", "b")));
  EXPECT_THAT(parse(""), ElementsAre());
  EXPECT_THAT(message_of<DataError>([] { parse("a,b\nc,\"d"); }), HasSubstr("u.csv:2"));
  EXPECT_THAT(message_of<DataError>([] { parse("a,\"b\"c"); }), HasSubstr("closing quote"));
}

class Users : public ::testing::Test {
 protected:
  std::filesystem::path csv(const std::string& text) {
    put(folder_ / "users.csv", text);
    return folder_ / "users.csv";
  }
  std::string error(const std::string& text) {
    const auto path = csv(text);
    return message_of<DataError>([&] { UserBound(path, 1, kUserKey); });
  }
  /// What a source of these images makes of it.
  std::string incomplete(const std::string& text, const std::vector<std::string>& images) {
    UserBound bound(csv(text), 1, kUserKey);
    for (const std::string& image : images) bound.admit_candidate(image);
    bound.close();
    return message_of<DataError>([&] { bound.check_complete(); });
  }
  TempFolder folder_;
};

TEST_F(Users, ReadsFilesAndUsers) {
  for (const char* header : {"", "file,user\n",
                             "\xEF\xBB\xBF"
                             "file_name,user\r\n",
                             "File,USER\n"}) {
    const UserBound bound(csv(std::string(header) + "./a.png,Ann\n\"b,c.png\",Bob\nd.png,Ann\n"), 1,
                          kUserKey);
    EXPECT_EQ(bound.user("a.png"), 0);
    EXPECT_EQ(bound.user("b,c.png"), 1);
    EXPECT_EQ(bound.user("d.png"), 0);
    const std::string message = message_of<DataError>([&] { bound.user("e.png"); });
    EXPECT_THAT(message, HasSubstr("e.png"));
    EXPECT_THAT(message, HasSubstr("users.csv"));
  }
}

TEST_F(Users, ColumnsHaveNames) {
  for (const char* text : {"user,date,file\nAnn,2020,cat/a.png\nBob,,\"b,c.png\"\n",
                           "id, file_name ,user\r\n7,./cat/a.png,Ann\r\n8,x/../b,Ann\r\n"
                           "9,\"b,c.png\",\"Bob\"\r\n"}) {
    const UserBound bound(csv(text), 1, kUserKey);
    EXPECT_EQ(bound.user("cat/a.png"), 0) << text;
    EXPECT_EQ(bound.user("b,c.png"), 1) << text;
  }
  // A user may be called so: without a name for the files the first line is of an image.
  const UserBound bound(csv("a.png,user\nb.png,Bob\n"), 1, kUserKey);
  EXPECT_EQ(bound.user("a.png"), 0);
}

TEST_F(Users, MistakesInTheHeaderAreNamed) {
  EXPECT_THAT(
      error("file,patient\na,x\n"),
      HasSubstr("users.csv:1: no column 'user' that says whose an image is; the columns are "
                "file, patient"));
  EXPECT_THAT(error("path,user,date\na,x,1\n"),
              HasSubstr("users.csv:1: no column 'file' or 'file_name' that names the images"));
  EXPECT_THAT(error("file,user,user\n"), HasSubstr("users.csv:1: there are two columns 'user'"));
  EXPECT_THAT(error("file,file_name,user\n"), HasSubstr("both name images"));
  EXPECT_THAT(error("file,user,x\na,b,c\nd,e\n"),
              HasSubstr("users.csv:3: 2 fields, and the first line names 3 columns"));
  EXPECT_THAT(error("file,user,x\na\n"), HasSubstr("users.csv:2: 1 field, and the first line"));
  EXPECT_THAT(error("user,file\nAnn,\n"), HasSubstr("users.csv:2: the file is empty"));
  EXPECT_THAT(error("user,file\n,a\n"), HasSubstr("users.csv:2: the user is empty"));
  EXPECT_THAT(error("file,user\n/tmp/a.png,x\n"),
              HasSubstr("users.csv:2: '/tmp/a.png' is no path"));
  EXPECT_THAT(error("file,user\ncat/../../a.png,x\n"), HasSubstr("is no path below data.source"));
  EXPECT_THAT(error("user,x,file\nAnn,1,a\nBob,1,./a\n"),
              HasSubstr("users.csv:3: file './a' is given to two users; line 2 names the other"));
}

TEST_F(Users, FilesAndImagesMustBeTheSame) {
  EXPECT_EQ(incomplete("file,user\na,x\nb,y\nb,y\n", {"b", "a"}), "no error");
  EXPECT_THAT(
      incomplete("file,user\na,x\nb,y\nc,y\n", {"b"}),
      ::testing::AllOf(HasSubstr("users.csv:2: 'a', "), HasSubstr("users.csv:4: 'c'; 2 files"),
                       ::testing::Not(HasSubstr("first line"))));
  EXPECT_THAT(
      incomplete("picture,user\na,x\n", {"a"}),
      HasSubstr("users.csv:1: 'picture'; 1 file is listed there and no image of data.source"));
  EXPECT_THAT(incomplete("picture,user\na,x\n", {"a"}), HasSubstr("called 'file' and 'user'"));
  std::vector<std::string> many{"a"};
  for (int i = 0; i < 9; ++i) many.push_back("n" + std::to_string(i));
  EXPECT_THAT(
      incomplete("a,x\n", many),
      HasSubstr(
          "does not say whose 9 images of data.source are: 'n0', 'n1', 'n2', 'n3', 'n4', ...;"));
}

TEST_F(Users, AnEmptyFileSaysWhatToWrite) {
  EXPECT_THAT(error(""),
              HasSubstr("users.csv:1: the file is empty; write 'file,user' in the first"));
  EXPECT_THAT(error("\xEF\xBB\xBF\n\n"), HasSubstr("users.csv:1: the file is empty"));
  EXPECT_THAT(error("user,file\n"),
              HasSubstr("users.csv:1: names columns and no image; add a line"));
}

TEST_F(Users, OtherSeparatorsThanCommasAreNamed) {
  EXPECT_THAT(error("file;user\na.png;Ann\n"),
              HasSubstr("users.csv:1: the fields are apart by ';', and a users' file has commas"));
  EXPECT_THAT(error("a.png\tAnn\n"), HasSubstr("users.csv:1: the fields are apart by tabs"));
  EXPECT_THAT(error("\nFile;User;age, in years\na.png;Ann;3\n"),
              HasSubstr("users.csv:2: the fields are apart by ';'"));
  EXPECT_EQ(error("a;b.png,Ann\nc\td,\"Ben;\"\n"), "no error");
}

/// Users who have one image each, and users who have several: found without a look at the source,
/// or with one.
TEST_F(Users, SwappedColumnsAreNamed) {
  EXPECT_THAT(
      incomplete("file,user\nAnn,cat/a.png\nBob,./b.png\n", {"b.png", "cat/a.png"}),
      HasSubstr("users.csv:2: the columns are swapped: 'Ann' is no image of data.source, and "
                "what stands as its user, 'cat/a.png', is one; name the columns "
                "'user,file' in the first line"));
  EXPECT_THAT(
      error("Ann,a.png\nAnn,b.PNG\n"),
      HasSubstr("users.csv:2: file 'Ann' is given to two users; line 1 names the other; the "
                "columns look swapped: if so, name them 'user,file' in the first line"));
  // Some are files: not swapped.
  EXPECT_THAT(incomplete("a.png,b.png\nc.png,Ann\n", {"b.png", "c.png"}),
              HasSubstr("does not say whose 1 image of data.source is: 'b.png'"));
}

TEST_F(Users, NamesWithoutTheirFolderAreNamedWithIt) {
  EXPECT_THAT(incomplete("file,user\n1.png,Ann\n2.png,Ann\n", {"cat/1.png", "dog/2.png"}),
              HasSubstr("users.csv:2: '1.png' is no image of data.source, where "
                        "'cat/1.png' has no user; files are named by their path from data.source: "
                        "if it is that image, write 'cat/1.png' here, and look at the other"));
  EXPECT_THAT(incomplete("scans/cat/1.png,Ann\n", {"cat/1.png"}),
              HasSubstr("users.csv:1: 'scans/cat/1.png' is no image of data.source, where "
                        "'cat/1.png' has no user"));
  EXPECT_THAT(error("1.png,Ann\n1.png,Bob\n"),
              HasSubstr("users.csv:2: file '1.png' is given to two users; line 1 names the other; "
                        "if these are images of two folders, name each by its path from "
                        "data.source, as 'cat/1.png'"));
  // An image of that name is there: the other one has no line, and none is spelt otherwise.
  EXPECT_THAT(incomplete("1.png,Ann\n", {"1.png", "cat/1.png"}),
              HasSubstr("does not say whose 1 image of data.source is: 'cat/1.png'"));
  EXPECT_THAT(incomplete("11.png,Ann\n", {"1.png"}), HasSubstr("does not say whose 1 image"));
}

// With the wrong image a person's picture would be another's.
TEST_F(Users, WhereSeveralImagesOrLinesMayBeMeantNoneIsNamed) {
  const std::string no_guess = "does not say whose";
  EXPECT_THAT(incomplete("1.png,Ann\n", {"cat/1.png", "dog/1.png"}), HasSubstr(no_guess));
  EXPECT_THAT(incomplete("scans/cat/1.png,Ann\n", {"1.png", "cat/1.png"}), HasSubstr(no_guess));
  EXPECT_THAT(incomplete("x/1.png,Ann\ny/1.png,Bob\n", {"1.png"}), HasSubstr(no_guess));
  EXPECT_THAT(incomplete("1.png,Ann\nx/cat/1.png,Bob\n", {"cat/1.png"}), HasSubstr(no_guess));
  // However many other images there are, and whichever is found first.
  std::vector<std::string> images{"cat/1.png"};
  for (int i = 0; i < 99; ++i) images.push_back("n" + std::to_string(i));
  EXPECT_THAT(incomplete("1.png,Ann\n", images), HasSubstr("write 'cat/1.png' here"));
  images.push_back("dog/1.png");
  EXPECT_THAT(incomplete("1.png,Ann\n", images), HasSubstr(no_guess));
  // Another line that can mean one image alone is named.
  images.push_back("dog/2.png");
  EXPECT_THAT(incomplete("1.png,Ann\n2.png,Bob\n", images),
              HasSubstr("users.csv:2: '2.png' is no image of data.source, where 'dog/2.png' has"));
}

TEST_F(Users, SaysWhatBoundsKeep) {
  std::string text;
  std::vector<std::string> images;
  for (const auto& [user, count] : {std::pair{"a", 1}, {"b", 3}, {"c", 5}})
    for (int i = 0; i < count; ++i) {
      images.push_back(user + std::to_string(i));
      text += images.back() + "," + user + "\n";
    }
  UserBound bound(csv(text), 3, kUserKey);
  for (const std::string& image : images) bound.admit_candidate(image);
  EXPECT_EQ(
      kept_by_bound_text(bound.kept_by_bound()),
      "1 keeps 3 of 9 (6 dropped), 2: 5 (4 dropped), 3: 7 (2 dropped), 4: 8 (1 dropped), 8: 9");
}

/// Spaces and case are all that these differ in, also beyond ASCII; others have more.
TEST_F(Users, IdsThatDifferInSpacesOrCaseAloneAreReported) {
  const auto alike = [&](const std::vector<std::string>& ids) {
    std::string lines;
    for (std::size_t i = 0; i < ids.size(); ++i)
      lines += std::to_string(i) + ".png,\"" + ids[i] + "\"\n";
    return UserBound(csv(lines), 1, kUserKey).users_alike();
  };
  EXPECT_EQ(alike({"anna", "anna ", "Anna", "bob"}), 1);
  EXPECT_EQ(alike({" p 1", "P1", "VCaP", "VCAP", "x"}), 2);
  EXPECT_EQ(alike({"\u00c4nne", "\u00e4nne", "\u0416", "\u0436", "a\u00a0b", "ab"}), 3);
  EXPECT_EQ(alike({"anna", "anna1", "ann a1x", "a\xff", "A\xfe"}), 0);
  EXPECT_EQ(alike({"a\xff", "A\xff"}), 1);  // no text, and still alike
}

TEST_F(Users, MistakesNameTheLine) {
  EXPECT_THAT(error("a,b\nc\n"), HasSubstr("users.csv:2: expected 'file,user', found 1 field;"));
  EXPECT_THAT(error("a,b\n\nc,d,e\n"), HasSubstr("users.csv:3"));
  EXPECT_THAT(error("a,\n"), HasSubstr("users.csv:1: the user is empty"));
  EXPECT_THAT(error("a,x\nb,x\na,y\n"), HasSubstr("users.csv:3: file 'a' is given to two users"));
  EXPECT_EQ(error("a,x\na,x\n"), "no error");
}

/// Names kept, when images come in the given order.
std::set<std::string> kept(const std::filesystem::path& csv, std::int64_t m, const std::string& key,
                           const std::vector<std::string>& images) {
  UserBound bound(csv, m, key);
  for (const auto& image : images) bound.admit_candidate(image);
  bound.close();
  std::set<std::string> names;
  for (const auto& image : images)
    if (bound.keep(image)) names.insert(image);
  return names;
}

TEST_F(Users, KeepsExactlyMOfEachUserWhateverTheOrder) {
  std::string text;
  std::vector<std::string> images;
  for (int user = 0; user < 6; ++user)
    for (int i = 0; i < 4 * user; ++i) {
      images.push_back("u" + std::to_string(user) + "/" + std::to_string(i));
      text += images.back() + "," + std::to_string(user) + "\n";
    }
  const auto path = csv(text);
  const auto names = kept(path, 3, kUserKey, images);
  std::map<char, int> per_user;
  for (const auto& name : names) ++per_user[name[1]];
  for (int user = 1; user < 6; ++user) EXPECT_EQ(per_user[static_cast<char>('0' + user)], 3);
  auto reversed = images;
  std::ranges::reverse(reversed);
  EXPECT_EQ(kept(path, 3, kUserKey, reversed), names);
  EXPECT_NE(kept(path, 3, std::string(32, 'x'), images), names) << "the choice is keyed";
  EXPECT_EQ(kept(path, 1000, kUserKey, images).size(), images.size());
}

/// What makes "one user" a unit: taking a user away leaves everybody else's images as they were.
TEST_F(Users, OneUsersChoiceDoesNotDependOnOthers) {
  std::vector<std::string> images;
  std::string text;
  for (int i = 0; i < 40; ++i) {
    images.push_back(std::to_string(i));
    text += images.back() + ",user" + std::to_string(i % 4) + "\n";
  }
  const auto path = csv(text);
  auto all = kept(path, 2, kUserKey, images);
  std::erase_if(all, [](const std::string& name) { return std::stoi(name) % 4 == 1; });
  auto others = images;
  std::erase_if(others, [](const std::string& name) { return std::stoi(name) % 4 == 1; });
  EXPECT_EQ(kept(path, 2, kUserKey, others), all);
}

TEST_F(Users, TheBoundHoldsEvenForRepeatedNames) {
  UserBound bound(csv("a,x\n"), 2, kUserKey);
  for (int i = 0; i < 5; ++i) bound.admit_candidate("a");
  bound.close();
  int count = 0;
  for (int i = 0; i < 5; ++i) count += bound.keep("a");
  EXPECT_EQ(count, 2);
  EXPECT_EQ(bound.users_kept(), 1);
}

}  // namespace
}  // namespace sfumato
