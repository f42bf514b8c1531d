#include "sfumato/privacy/ledger.h"

#include <set>
#include <type_traits>

#include "forked_child.h"
#include "ledger_support.h"
#include "sfumato/core/sha256.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {
namespace {

using test::child_is_refused;
using test::error_message;
using test::lines_of;
using test::small_plan;
using test::TempFolder;
using testing::HasSubstr;

// Nobody but Ledger can make a charge, and none can be doubled.
static_assert(!std::is_default_constructible_v<ChargedStep>);
static_assert(!std::is_constructible_v<ChargedStep, std::int64_t, std::int64_t, std::string>);
static_assert(!std::is_copy_constructible_v<ChargedStep> &&
              !std::is_copy_assignable_v<ChargedStep>);
static_assert(std::is_move_constructible_v<ChargedStep>);

TEST(Ledger, SaysWhatWasDone) {
  TempFolder folder;
  const auto path = folder / "ledger.jsonl";
  test::write_sample_ledger(path);
  const LedgerSummary found = verify_ledger(path);
  EXPECT_TRUE(found.problems.empty()) << found.problems.front();
  EXPECT_EQ(found.lines, 9);
  EXPECT_EQ(found.charged_steps, 5);  // step 2 was taken twice and is paid twice
  EXPECT_EQ(found.max_charged_steps, 100);
  EXPECT_EQ(found.last_optimizer_step, 3);
  EXPECT_EQ(found.plan, small_plan().dump());
  EXPECT_EQ(found.plan_hash, sha256_hex(found.plan));
  ASSERT_EQ(found.sessions.size(), 2u);
  EXPECT_EQ(found.sessions[0].charged_steps, 3);
  EXPECT_EQ(found.sessions[1].charged_steps, 2);
  EXPECT_NE(found.sessions[0].noise_key_id, found.sessions[1].noise_key_id);
  EXPECT_EQ(found.run_id.size(), 16u);
  EXPECT_FALSE(found.insecure());
  EXPECT_EQ(found.head_hash, sha256_hex(lines_of(path).back()));
}

TEST(Ledger, EveryLineHoldsTheHashOfTheLineBefore) {
  TempFolder folder;
  test::write_sample_ledger(folder / "l");
  std::string previous(64, '0');
  for (const std::string& line : lines_of(folder / "l")) {
    EXPECT_EQ(nlohmann::json::parse(line)["previous"], previous);
    previous = sha256_hex(line);
  }
}

TEST(Ledger, ChargeIsOnDiskBeforeTheTokenExists) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate();
  Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, key);
  for (std::int64_t step = 0; step < 3; ++step) {
    const ChargedStep charge = ledger.charge(10 * step, key);
    EXPECT_EQ(charge.optimizer_step(), 10 * step);
    EXPECT_EQ(charge.release_number(), step + 1);
    const LedgerSummary found = verify_ledger(folder / "l");  // another look at the file
    EXPECT_EQ(found.charged_steps, step + 1);
    EXPECT_EQ(found.last_optimizer_step, 10 * step);
    EXPECT_EQ(found.head_hash, ledger.head_hash());
  }
}

TEST(Ledger, ChargePaysForOneReleaseUnderOneKey) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate(), other = SecureKey::generate();
  Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, key);
  ChargedStep charge = ledger.charge(0, key);
  EXPECT_THROW(charge.spend(other), PrivacyError);
  ChargedStep moved = std::move(charge);
  EXPECT_THROW(charge.optimizer_step(), PrivacyError);  // NOLINT(bugprone-use-after-move)
  EXPECT_THROW(charge.spend(key), PrivacyError);
  EXPECT_EQ(moved.spend(key), 1);
  EXPECT_THROW(moved.spend(key), PrivacyError);
  EXPECT_THROW(moved.release_number(), PrivacyError);
}

TEST(Ledger, ReleaseNumbersNeverRepeatAcrossSessions) {
  TempFolder folder;
  std::set<std::int64_t> numbers;
  const SecureKey first = SecureKey::generate();
  {
    Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, first);
    for (std::int64_t step = 0; step < 3; ++step)
      numbers.insert(ledger.charge(step, first).release_number());
  }
  const SecureKey second = SecureKey::generate();
  Ledger ledger = Ledger::open(folder / "l");
  ledger.resume(second);
  for (std::int64_t step = 1; step < 4; ++step)
    numbers.insert(ledger.charge(step, second).release_number());
  EXPECT_EQ(numbers, (std::set<std::int64_t>{1, 2, 3, 4, 5, 6}));
}

TEST(Ledger, StopsBeforeThePlanIsExceeded) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate();
  {
    Ledger ledger = Ledger::create(folder / "l", small_plan(), 2, key);
    (void)ledger.charge(0, key);
    (void)ledger.charge(1, key);
    EXPECT_THAT(error_message<PrivacyError>([&] { (void)ledger.charge(2, key); }),
                HasSubstr("all 2 noisy steps"));
    EXPECT_EQ(ledger.charged_steps(), 2);
  }
  const SecureKey next = SecureKey::generate();
  Ledger ledger = Ledger::open(folder / "l");
  ledger.resume(next);
  EXPECT_THROW((void)ledger.charge(1, next), PrivacyError);  // a repeated step counts as well
  EXPECT_EQ(verify_ledger(folder / "l").charged_steps, 2);
  EXPECT_THROW(Ledger::create(folder / "m", small_plan(), 0, key), UsageError);
}

TEST(Ledger, ASessionTakesItsStepsInOrder) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate();
  Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, key);
  (void)ledger.charge(4, key);
  for (const std::int64_t step : {4, 3, 0, -1})
    EXPECT_THROW((void)ledger.charge(step, key), PrivacyError) << step;
  EXPECT_EQ(ledger.charged_steps(), 1);
}

TEST(Ledger, EverySessionNeedsItsOwnKey) {
  TempFolder folder;
  const SecureKey first = SecureKey::generate(), second = SecureKey::generate();
  { Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, first); }
  Ledger ledger = Ledger::open(folder / "l");
  for (const SecureKey* key : {&first, &second})
    EXPECT_THROW((void)ledger.charge(0, *key), PrivacyError);  // no session yet
  EXPECT_THAT(error_message<PrivacyError>([&] { ledger.resume(first); }),
              HasSubstr("every session needs a new key"));
  ledger.resume(second);
  EXPECT_THROW((void)ledger.charge(0, first), PrivacyError);
  EXPECT_NO_THROW((void)ledger.charge(0, second));
  EXPECT_EQ(verify_ledger(folder / "l").charged_steps, 1);
}

TEST(Ledger, TestKeysAreMarked) {
  TempFolder folder;
  const SecureKey key = SecureKey::insecure_for_tests(1);
  Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, key);
  EXPECT_TRUE(ledger.insecure());
  EXPECT_TRUE(verify_ledger(folder / "l").insecure());
}

TEST(Ledger, HoldsTheMechanismAndItsHash) {
  TempFolder folder;
  MechanismPlan plan;
  plan.sample_rate = 0.01;
  plan.noise_multiplier = 1.0 / 3.0;
  plan.steps = 10;
  const SecureKey key = SecureKey::generate();
  { Ledger ledger = Ledger::create(folder / "l", plan.to_json(), plan.steps, key); }
  const Ledger ledger = Ledger::open(folder / "l");
  EXPECT_EQ(ledger.plan_hash(), plan.hash());
  const MechanismPlan back = MechanismPlan::from_json(nlohmann::json::parse(ledger.plan()));
  EXPECT_EQ(plan.describe_difference(back), "");
}

TEST(Ledger, LetsOneProcessIn) {
  TempFolder folder;
  const auto path = folder / "l";
  const SecureKey key = SecureKey::generate();
  {
    Ledger ledger = Ledger::create(path, small_plan(), 10, key);
    EXPECT_THAT(error_message<PrivacyError>([&] { Ledger::open(path); }),
                HasSubstr("another process holds"));
    EXPECT_TRUE(child_is_refused([&] { Ledger::open(path); }));
    EXPECT_NO_THROW(verify_ledger(path));  // looking is free
    const Ledger moved = std::move(ledger);
    EXPECT_THROW(Ledger::open(path), PrivacyError);
  }
  EXPECT_NO_THROW(Ledger::open(path));
}

TEST(Ledger, RefusesAForkedProcess) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate();
  Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, key);
  EXPECT_TRUE(child_is_refused([&] { (void)ledger.charge(0, key); }));
  EXPECT_TRUE(child_is_refused([&] { ledger.record_event("stop", {}); }));
  EXPECT_NO_THROW((void)ledger.charge(0, key));  // the lock outlived the child
  EXPECT_THROW(Ledger::open(folder / "l"), PrivacyError);
}

TEST(Ledger, NeverOverwritesAnother) {
  TempFolder folder;
  test::write_sample_ledger(folder / "l");
  const std::string before = read_file(folder / "l");
  const SecureKey key = SecureKey::generate();
  EXPECT_THAT(error_message<UsageError>([&] { Ledger::create(folder / "l", {}, 10, key); }),
              HasSubstr("resume"));
  EXPECT_EQ(read_file(folder / "l"), before);
  EXPECT_THROW(Ledger::create(folder / "missing" / "l", {}, 10, key), DataError);
  EXPECT_THROW(Ledger::open(folder / "none"), DataError);
  EXPECT_THROW(verify_ledger(folder / "none"), DataError);
}

TEST(Ledger, TakesNothingPrivate) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate();
  Ledger ledger = Ledger::create(folder / "l", small_plan(), 10, key);
  for (const nlohmann::ordered_json& fields :
       std::vector<nlohmann::ordered_json>{{{"loss", 0.5}},
                                           {{"batch", 31}},
                                           {{"step", 0.5}},
                                           {{"reason", 3}},
                                           {{"reason", std::string(201, 'x')}},
                                           {{"step", 1}, {"clip_fraction", 0.1}}})
    EXPECT_THROW(ledger.record_event("stop", fields), PrivacyError) << fields;
  EXPECT_THROW(ledger.record_event("metric", {}), PrivacyError);
  EXPECT_EQ(verify_ledger(folder / "l").lines, 1);
}

TEST(Ledger, ChargesDoNotTellTheTime) {
  // How long a step took tells how many records joined it.
  TempFolder folder;
  test::write_sample_ledger(folder / "l");
  const std::set<std::string> allowed{"line",    "kind",     "session", "step",
                                      "charged", "previous", "sha256"};
  int charges = 0;
  for (const std::string& line : lines_of(folder / "l")) {
    const auto json = nlohmann::json::parse(line);
    if (json["kind"] == "create" || json["kind"] == "resume") continue;
    EXPECT_FALSE(json.contains("time")) << line;
    if (json["kind"] != "charge") continue;
    ++charges;
    for (const auto& [name, value] : json.items()) EXPECT_TRUE(allowed.contains(name)) << name;
  }
  EXPECT_EQ(charges, 5);
}

}  // namespace
}  // namespace sfumato
