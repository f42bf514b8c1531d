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
  TempFolder folder_;
};

TEST_F(Users, ReadsFilesAndUsers) {
  for (const char* header : {"", "file,user\n",
                             "\xEF\xBB\xBF"
                             "file_name,user\r\n"}) {
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
  EXPECT_THAT(error("a,b\nc\n"), HasSubstr("users.csv:2: expected 'file,user', found 1 field"));
  EXPECT_THAT(error("a,b\n\nc,d,e\n"), HasSubstr("users.csv:3"));
  EXPECT_THAT(error("a,\n"), HasSubstr("one of them empty"));
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
