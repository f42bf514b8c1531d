// Every kind of tampering and every kind of crash.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "ledger_support.h"
#include "sfumato/core/sha256.h"
#include "src/privacy/ledger_line.h"

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

class DamagedLedger : public testing::Test {
 protected:
  void SetUp() override {
    test::write_sample_ledger(path_);
    lines_ = lines_of(path_);
    ASSERT_EQ(lines_.size(), 9u);
  }
  /// True if both readers notice; the first problem must be at line `line` (0: anywhere).
  void expect_noticed(const std::string& what, std::size_t line = 0) {
    const LedgerSummary found = verify_ledger(path_);
    ASSERT_FALSE(found.problems.empty()) << what;
    if (line > 0) {
      EXPECT_THAT(found.problems.front(), testing::StartsWith(fmt_line(line))) << what;
    }
    EXPECT_THAT(error_message<PrivacyError>([&] { Ledger::open(path_); }),
                HasSubstr(found.problems.front()))
        << what;
  }
  static std::string fmt_line(std::size_t line) { return "line " + std::to_string(line) + ":"; }

  TempFolder folder_;
  std::filesystem::path path_ = folder_ / "ledger.jsonl";
  std::vector<std::string> lines_;
};

TEST_F(DamagedLedger, EveryChangedByteIsNoticed) {
  const std::string whole = read_file(path_);
  for (std::size_t i = 0; i + 1 < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    ASSERT_FALSE(read_ledger(path_, changed, "").problems.empty()) << "byte " << i;
  }
}

TEST_F(DamagedLedger, EditedLineIsNoticedAndNamed) {
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    std::vector<std::string> changed = lines_;
    const std::size_t at = changed[i].find("\"kind\":\"");
    changed[i][at + 8] = 'X';
    write_lines(path_, changed);
    expect_noticed("edit", i + 1);
  }
}

TEST_F(DamagedLedger, EditWithItsOwnHashRedoneIsNoticedByTheNextLine) {
  for (std::size_t i = 0; i + 1 < lines_.size(); ++i) {
    std::vector<std::string> changed = lines_;
    json line = json::parse(changed[i]);
    line.erase("sha256");
    line["note"] = "forged";
    changed[i] = seal_line(line);
    ASSERT_TRUE(seal_holds(changed[i]));
    write_lines(path_, changed);
    expect_noticed("forged", i + 2);
  }
}

TEST_F(DamagedLedger, MissingDoubledAndSwappedLinesAreNoticed) {
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    const auto at = static_cast<std::ptrdiff_t>(i);
    if (i + 1 < lines_.size()) {
      std::vector<std::string> removed = lines_;
      removed.erase(removed.begin() + at);
      write_lines(path_, removed);
      expect_noticed("removed", i + 1);
    }
    for (std::size_t j = i + 1; j < lines_.size(); ++j) {
      std::vector<std::string> swapped = lines_;
      std::swap(swapped[i], swapped[j]);
      write_lines(path_, swapped);
      expect_noticed("swapped", i + 1);
    }
    std::vector<std::string> doubled = lines_;
    doubled.insert(doubled.begin() + at, lines_[i]);
    write_lines(path_, doubled);
    expect_noticed("doubled", i + 2);
  }
}

TEST_F(DamagedLedger, LinesRemovedFromTheEndAreNoticedByWhoeverKeptTheHead) {
  const std::string head = verify_ledger(path_).head_hash;
  EXPECT_TRUE(verify_ledger(path_, head).problems.empty());
  EXPECT_NO_THROW(Ledger::open(path_, head));
  EXPECT_TRUE(
      verify_ledger(path_, sha256_hex(lines_[4])).problems.empty());  // later lines are fine
  while (lines_.size() > 1) {
    lines_.pop_back();
    write_lines(path_, lines_);
    EXPECT_EQ(verify_ledger(path_, head).problems.size(), 1u);
    EXPECT_THAT(error_message<PrivacyError>([&] { Ledger::open(path_, head); }),
                HasSubstr("removed from the end"));
  }
}

TEST_F(DamagedLedger, OtherFilesAreNoLedgers) {
  for (const std::string& bytes :
       {std::string(), std::string("\n"), std::string("hello\n"), std::string("{}\n"),
        std::string("[1]\n"), std::string(1000, '\0'), read_file(path_).insert(0, "\n"),
        read_file(path_) + "\n"}) {
    write_file_atomic(path_, bytes);
    expect_noticed(bytes.substr(0, 20));
  }
}

TEST(LedgerContent, MustMakeSenseToo) {
  TempFolder folder;
  const auto path = folder / "l";
  const json plan = small_plan();
  const auto start = [](const char* kind, int session, const char* key) {
    return json{{"kind", kind},   {"session", session}, {"noise_key_id", key}, {"time", "now"},
                {"version", "1"}, {"git_commit", "c"},  {"insecure", false}};
  };
  json create = start("create", 1, "a");
  create.update({{"format", 1},
                 {"run", "r"},
                 {"plan", plan},
                 {"plan_hash", sha256_hex(plan.dump())},
                 {"max_charged_steps", 3}});
  const auto charge = [](int session, int step, int charged) {
    return json{{"kind", "charge"}, {"session", session}, {"step", step}, {"charged", charged}};
  };
  const auto problem = [&](const std::vector<json>& contents) {
    write_lines(path, chained(contents));
    const LedgerSummary found = verify_ledger(path);
    return found.problems.empty() ? std::string() : found.problems.front();
  };
  EXPECT_EQ(
      problem({create, charge(1, 0, 1), charge(1, 1, 2), start("resume", 2, "b"), charge(2, 1, 3)}),
      "");
  EXPECT_THAT(problem({create, charge(1, 0, 1), charge(1, 1, 1)}), HasSubstr("says 1 charged"));
  EXPECT_THAT(problem({create, charge(1, 1, 1), charge(1, 1, 2)}), HasSubstr("again"));
  EXPECT_THAT(problem({create, charge(2, 1, 1)}), HasSubstr("not the one running"));
  EXPECT_THAT(problem({create, start("resume", 2, "a")}), HasSubstr("noise key of session 1"));
  EXPECT_THAT(problem({create, start("resume", 3, "b")}), HasSubstr("session number"));
  EXPECT_THAT(problem({create, charge(1, 0, 1), charge(1, 1, 2), charge(1, 2, 3), charge(1, 3, 4)}),
              HasSubstr("more than the plan's 3"));
  EXPECT_THAT(problem({create, create}), HasSubstr("starts a second ledger"));
  EXPECT_THAT(problem({charge(1, 0, 1)}), HasSubstr("not the first line"));
  EXPECT_THAT(problem({create, json{{"kind", "gift"}}}), HasSubstr("unknown kind 'gift'"));
  EXPECT_THAT(problem({create, json{{"kind", "charge"}, {"session", 1}, {"step", "0"}}}),
              HasSubstr("'step' is missing or no integer"));
  json other_plan = create;
  other_plan["plan"]["noise_multiplier"] = 0.5;
  EXPECT_THAT(problem({other_plan}), HasSubstr("plan and plan_hash"));
  json newer = create;
  newer["format"] = 2;
  EXPECT_THAT(problem({newer}), HasSubstr("newer version"));
  // Where a line says more than was counted, the larger number stands.
  write_lines(path, chained({create, charge(1, 0, 3)}));
  EXPECT_EQ(verify_ledger(path).charged_steps, 3);
}

TEST_F(DamagedLedger, TornLastLineIsCutAndCountedWhereverItTore) {
  const std::string whole = read_file(path_);
  const std::size_t begin = whole.size() - lines_.back().size() - 1;
  for (const std::size_t kept : {std::size_t{1}, std::size_t{2}, std::size_t{40},
                                 lines_.back().size() / 2, lines_.back().size() - 1}) {
    write_file_atomic(path_, whole.substr(0, begin + kept));
    LedgerSummary torn = verify_ledger(path_);
    EXPECT_EQ(torn.torn_bytes, static_cast<std::int64_t>(kept));
    EXPECT_TRUE(torn.problems.empty());
    const SecureKey key = SecureKey::generate();
    {
      Ledger ledger = Ledger::open(path_);
      EXPECT_EQ(ledger.charged_steps(), 5);  // four whole charges, and the torn line as the fifth
      ledger.resume(key);
      EXPECT_EQ(ledger.charge(7, key).release_number(), 6);
    }
    const LedgerSummary found = verify_ledger(path_);
    EXPECT_TRUE(found.problems.empty()) << found.problems.front();
    EXPECT_EQ(found.torn_bytes, 0);
    EXPECT_EQ(found.recoveries, 1);
    EXPECT_EQ(found.charged_steps, 6);
    EXPECT_EQ(found.sessions.size(), 3u);
  }
}

TEST_F(DamagedLedger, LastLineThatOnlyLostItsNewlineStays) {
  const std::string whole = read_file(path_);
  write_file_atomic(path_, whole.substr(0, whole.size() - 1));
  EXPECT_EQ(verify_ledger(path_).charged_steps, 5);
  { EXPECT_EQ(Ledger::open(path_).charged_steps(), 5); }
  EXPECT_EQ(read_file(path_), whole);
}

TEST(LedgerCrash, TornFirstLineSaysThatNothingWasCharged) {
  TempFolder folder;
  test::write_sample_ledger(folder / "l");
  write_file_atomic(folder / "l", read_file(folder / "l").substr(0, 50));
  EXPECT_THAT(error_message<PrivacyError>([&] { Ledger::open(folder / "l"); }),
              HasSubstr("nothing was charged"));
}

TEST(LedgerCrash, KilledAtAnyMomentItNeverUnderCounts) {
  TempFolder folder;
  const auto path = folder / "l";
  { Ledger::create(path, small_plan(), 1'000'000, SecureKey::generate()); }
  std::int64_t used = 0;
  for (int round = 0; round < 12; ++round) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      // A byte goes out for every step whose noise would now be drawn.
      const SecureKey key = SecureKey::generate();
      Ledger ledger = Ledger::open(path);
      ledger.resume(key);
      for (std::int64_t step = 0;; ++step) {
        ChargedStep charge = ledger.charge(step, key);
        charge.spend(key);
        if (::write(pipe[1], "x", 1) != 1) ::_exit(1);
      }
    }
    ::close(pipe[1]);
    char byte = 0;
    if (round % 3 == 0) used += ::read(pipe[0], &byte, 1);  // surely in the middle of training
    ::usleep(static_cast<useconds_t>(3000 + 1700 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
    while (::read(pipe[0], &byte, 1) == 1) ++used;
    ::close(pipe[0]);
    const std::int64_t charged = verify_ledger(path).charged_steps;
    EXPECT_GE(charged, used);
    EXPECT_LE(charged, used + round + 1);  // at most the step in flight, each time
  }
  EXPECT_GT(used, 0);
  EXPECT_TRUE(verify_ledger(path).problems.empty());
}

TEST(LedgerCrash, ChargeThatWasNeverUsedStaysCharged) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate();
  {
    Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, key);
    const ChargedStep lost = ledger.charge(0, key);
  }  // the process ends here
  Ledger ledger = Ledger::open(folder / "l");
  const SecureKey next = SecureKey::generate();
  ledger.resume(next);
  (void)ledger.charge(0, next);
  EXPECT_EQ(ledger.charged_steps(), 2);
}

/// Lets no file grow beyond `bytes` while it lives: a full disk for one process.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  sighandler_t handler_;
};

TEST(LedgerCrash, FullDiskChargesNothingAndDamagesNothing) {
  TempFolder folder;
  const auto path = folder / "l";
  const SecureKey key = SecureKey::generate();
  {
    Ledger ledger = Ledger::create(path, small_plan(), 10, key);
    (void)ledger.charge(0, key);
    const std::string before = read_file(path);
    {
      const SmallDisk disk(before.size() + 30);  // room for a part of a line
      EXPECT_THROW((void)ledger.charge(1, key), DataError);
    }
    EXPECT_EQ(read_file(path), before);
    EXPECT_EQ(ledger.charged_steps(), 1);
    EXPECT_THAT(error_message<PrivacyError>([&] { (void)ledger.charge(1, key); }),
                HasSubstr("failed write"));
  }
  const SecureKey next = SecureKey::generate();
  Ledger ledger = Ledger::open(path);
  ledger.resume(next);
  EXPECT_EQ(ledger.charge(1, next).release_number(), 2);
  EXPECT_TRUE(verify_ledger(path).problems.empty());
}

TEST(LedgerCrash, FullDiskLeavesNoHalfLedgerBehind) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate();
  {
    const SmallDisk disk(100);
    EXPECT_THROW(Ledger::create(folder / "l", small_plan(), 10, key), DataError);
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "l"));
  EXPECT_NO_THROW(Ledger::create(folder / "l", small_plan(), 10, key));
}

TEST(LedgerCrash, ForeignChangesDuringTheRunAreNoticed) {
  const std::vector<std::function<void(const std::filesystem::path&)>> changes{
      [](const auto& path) { std::filesystem::remove(path); },
      [](const auto& path) { write_file_atomic(path, read_file(path)); },  // another file now
      [](const auto& path) { AppendFile(path).append("{}\n"); },
      [](const auto& path) { std::filesystem::resize_file(path, 10); }};
  for (const auto& change : changes) {
    TempFolder folder;
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, key);
    (void)ledger.charge(0, key);
    change(folder / "l");
    EXPECT_THAT(error_message<PrivacyError>([&] { (void)ledger.charge(1, key); }),
                HasSubstr("changed, replaced or removed"));
    EXPECT_EQ(ledger.charged_steps(), 1);
  }
}

}  // namespace
}  // namespace sfumato
