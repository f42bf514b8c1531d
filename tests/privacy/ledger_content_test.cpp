// What the first line says of the start and a release line of what left, written and read.
#include "ledger_support.h"

namespace sfumato {
namespace {

using json = nlohmann::ordered_json;
using test::chained;
using test::error_message;
using test::lines_of;
using test::small_plan;
using test::TempFolder;
using test::write_lines;
using testing::HasSubstr;

/// A ledger of one session and `last`; its first problem, "" if it has none.
std::string problem_with(const std::filesystem::path& path, const json& initial_weights,
                         const std::vector<json>& last = {},
                         const json& initial_folders = json(json::value_t::discarded)) {
  json create = {{"kind", "create"},
                 {"format", 1},
                 {"run", "r"},
                 {"plan", small_plan()},
                 {"plan_hash", sha256_hex(small_plan().dump())},
                 {"max_charged_steps", 3}};
  if (!initial_weights.is_discarded()) create["initial_weights"] = initial_weights;
  if (!initial_folders.is_discarded()) create["initial_folders"] = initial_folders;
  create.update({{"session", 1},
                 {"noise_key_id", "a"},
                 {"time", "now"},
                 {"version", "1"},
                 {"git_commit", "c"},
                 {"insecure", false}});
  std::vector<json> contents = {create};
  contents.insert(contents.end(), last.begin(), last.end());
  write_lines(path, chained(contents));
  const LedgerSummary found = verify_ledger(path);
  return found.problems.empty() ? std::string() : found.problems.front();
}

json start(const json& origin, const json& sha256, const json& on_word) {
  return {{"origin", origin}, {"sha256", sha256}, {"on_word", on_word}};
}

const std::string kHash(64, 'a');

TEST(LedgerStart, IsWholeOrAProblem) {
  TempFolder folder;
  const auto path = folder / "l";
  for (const json& good : {start("scratch", nullptr, false), start("public", kHash, false),
                           start("not_private", kHash, true), start("private", kHash, false),
                           start("private", kHash, true), json(json::value_t::discarded)})
    EXPECT_EQ(problem_with(path, good), "") << good.is_discarded();
  json more = start("scratch", nullptr, false);
  more["note"] = 1;
  json less = start("scratch", nullptr, false);
  less.erase("on_word");
  const std::vector<json> wrong = {nullptr,
                                   "public",
                                   json::array(),
                                   3,
                                   json::object(),
                                   more,
                                   less,
                                   start("martian", kHash, false),
                                   start(json::array({"public"}), kHash, false),
                                   start("public", nullptr, false),
                                   start("public", 5, false),
                                   start("public", std::string(64, 'A'), false),
                                   start("public", std::string(63, 'a'), false),
                                   start("public", kHash, 1),
                                   start("public", kHash, true),
                                   start("scratch", kHash, false),
                                   start("scratch", nullptr, true),
                                   start("not_private", kHash, false)};
  for (const json& each : wrong)
    EXPECT_THAT(problem_with(path, each), HasSubstr("line 1: does not say what the run started"))
        << each;
}

TEST(LedgerStart, WhereItsWeightsLayIsNotedOrNotKnown) {
  TempFolder folder;
  const json public_start = start("public", kHash, false);
  for (const json& good :
       {json::array({"."}), json::array({"unet"}), json::array({"generator", "discriminator"})}) {
    EXPECT_EQ(problem_with(folder / "l", public_start, {}, good), "");
    EXPECT_EQ(json(verify_ledger(folder / "l").initial_weights->folders), good);
  }
  for (const json& wrong :
       std::vector<json>{nullptr, json::array(), "unet", json::array({1}),
                         json::array({"../other"}), json::array({"/etc"}), json::array({""})})
    EXPECT_THAT(problem_with(folder / "l", public_start, {}, wrong),
                HasSubstr("line 1: does not say where the weights lay"))
        << wrong;
  EXPECT_NE(problem_with(folder / "l", start("scratch", nullptr, false), {}, json::array({"unet"})),
            "");
  // Written beside what a card repeats, and read again; ledgers of before have no such key.
  const InitialWeights initial{"public", kHash, false, {"painter", "critic"}};
  (void)Ledger::create(folder / "w", small_plan(), 3, SecureKey::generate(), true, initial);
  EXPECT_EQ(verify_ledger(folder / "w").initial_weights->folders, initial.folders);
  EXPECT_FALSE(to_json(initial).contains("folders"));
  (void)Ledger::create(folder / "s", small_plan(), 3, SecureKey::generate());
  EXPECT_THAT(read_file(folder / "s"), ::testing::Not(HasSubstr("initial_folders")));
}

TEST(LedgerStart, NotesTheRecordStoreOrNothing) {
  TempFolder folder;
  (void)Ledger::create(folder / "l", small_plan(), 3, SecureKey::generate(), true, {}, kHash);
  EXPECT_EQ(verify_ledger(folder / "l").data_manifest_hash, kHash);
  (void)Ledger::create(folder / "none", small_plan(), 3, SecureKey::generate());
  EXPECT_EQ(verify_ledger(folder / "none").data_manifest_hash, "");
  EXPECT_THAT(read_file(folder / "none"), ::testing::Not(HasSubstr("data_manifest_hash")));
  EXPECT_THROW((void)Ledger::create(folder / "odd", small_plan(), 3, SecureKey::generate(), true,
                                    {}, "a store"),
               PrivacyError);
  EXPECT_FALSE(std::filesystem::exists(folder / "odd"));
  json first = json::parse(lines_of(folder / "l").front());
  for (const char* key : {"line", "previous", "sha256"}) first.erase(key);
  for (const json& wrong : {json("a store"), json(3), json(nullptr), json(std::string(64, 'A'))}) {
    first["data_manifest_hash"] = wrong;
    write_lines(folder / "odd", chained({first}));
    EXPECT_THAT(verify_ledger(folder / "odd").problems,
                testing::Contains(HasSubstr("data_manifest_hash")))
        << wrong;
  }
}

TEST(LedgerRelease, IsWholeOrAProblem) {
  TempFolder folder;
  const auto path = folder / "l";
  const json initial = start("scratch", nullptr, false);
  const auto problem = [&](const json& fields) {
    json line = {{"kind", "release"}, {"session", 1}};
    line.update(fields);
    return problem_with(path, initial, {line});
  };
  const json files = {{"README.md", kHash}, {"unet/config.json", kHash}};
  EXPECT_EQ(problem({{"weights", kHash}, {"card_facts", kHash}, {"files", files}}), "");
  EXPECT_EQ(verify_ledger(path).released.files.at("unet/config.json"), kHash);
  // As older versions wrote it.
  EXPECT_EQ(problem({{"weights", kHash}}), "");
  EXPECT_EQ(verify_ledger(path).released.weights, kHash);
  EXPECT_EQ(verify_ledger(path).released.card_facts, "");
  for (const json& wrong :
       std::vector<json>{nullptr, 1, "ab", std::string(64, 'A'), json::array()}) {
    EXPECT_NE(problem({{"weights", wrong}}), "") << wrong;
    EXPECT_NE(problem({{"weights", kHash}, {"card_facts", wrong}, {"files", files}}), "") << wrong;
    EXPECT_NE(
        problem({{"weights", kHash}, {"card_facts", kHash}, {"files", json{{"README.md", wrong}}}}),
        "")
        << wrong;
  }
  EXPECT_NE(problem(json::object()), "");
  EXPECT_NE(problem({{"weights", kHash}, {"card_facts", kHash}}), "");
  EXPECT_NE(problem({{"weights", kHash}, {"files", files}}), "");
  EXPECT_NE(problem({{"weights", kHash}, {"card_facts", kHash}, {"files", 3}}), "");
  EXPECT_EQ(verify_ledger(path).released.by_discriminator, std::nullopt);
  for (const bool noted : {false, true}) {
    EXPECT_EQ(problem({{"weights", kHash},
                       {"card_facts", kHash},
                       {"files", files},
                       {"by_discriminator", noted}}),
              "");
    EXPECT_EQ(verify_ledger(path).released.by_discriminator, noted);
  }
  EXPECT_THAT(problem({{"weights", kHash},
                       {"card_facts", kHash},
                       {"files", files},
                       {"by_discriminator", "yes"}}),
              HasSubstr("by_discriminator"));
  for (const char* outside : {"", "/etc/passwd", "../config.yaml", "Jane's scan.png"})
    EXPECT_NE(problem({{"weights", kHash}, {"card_facts", kHash}, {"files", {{outside, kHash}}}}),
              "")
        << outside;
}

TEST(LedgerRelease, IsReadAsItWasNoted) {
  TempFolder folder;
  const auto path = folder / "l";
  const SecureKey key = SecureKey::generate();
  Ledger ledger = Ledger::create(path, small_plan(), 3, key);
  EXPECT_EQ(ledger.released(), ReleasedFiles{});
  const ReleasedFiles released{
      kHash, std::string(64, 'b'), {{"README.md", std::string(64, 'c')}}, true};
  ledger.record_release(released);
  EXPECT_EQ(ledger.released(), released);
  EXPECT_EQ(verify_ledger(path).released, released);
  EXPECT_TRUE(verify_ledger(path).problems.empty());
  const auto refused = [&](const ReleasedFiles& wrong) {
    error_message<PrivacyError>([&] { ledger.record_release(wrong); });
  };
  refused({"ab", kHash, {}});
  refused({kHash, "", {}});
  refused({kHash, kHash, {{"README.md", "7"}}});
  refused({kHash, kHash, {{"private/metrics of Jane", kHash}}});
  EXPECT_EQ(lines_of(path).size(), 2u);
}

}  // namespace
}  // namespace sfumato
