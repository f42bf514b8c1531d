#include "sfumato/privacy/secure_random.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <type_traits>
#include <vector>

#include "forked_child.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/privacy/poisson_sampler.h"

namespace sfumato {
namespace {

using test::child_is_refused;

static_assert(!std::is_copy_constructible_v<SecureKey> && !std::is_copy_assignable_v<SecureKey>);
static_assert(!std::is_default_constructible_v<SecureKey>);
static_assert(!std::is_copy_constructible_v<ChaChaKey>);

TEST(SecureKey, KeysOfTheSystemDifferInEveryWord) {
  std::set<std::uint32_t> words;
  std::set<std::string> ids;
  for (int i = 0; i < 50; ++i) {
    const SecureKey key = SecureKey::generate();
    EXPECT_FALSE(key.insecure());
    ids.insert(key.id());
    words.insert(std::begin(key.chacha_key().words), std::end(key.chacha_key().words));
  }
  EXPECT_EQ(ids.size(), 50u);
  EXPECT_GE(words.size(), 399u);  // two collisions of 400 words: chance below 2e-10
}

TEST(SecureKey, IdIsAPrefixOfTheHashOfTheKey) {
  const SecureKey key = SecureKey::generate();
  const std::string bytes(reinterpret_cast<const char*>(key.chacha_key().words), 32);
  EXPECT_EQ(key.id(), sha256_hex(bytes).substr(0, 16));
}

TEST(SecureKey, TestKeysRepeatAndSaySo) {
  const SecureKey a = SecureKey::insecure_for_tests(1), b = SecureKey::insecure_for_tests(1),
                  c = SecureKey::insecure_for_tests(2);
  EXPECT_TRUE(a.insecure());
  EXPECT_EQ(a.id(), b.id());
  EXPECT_NE(a.id(), c.id());
}

TEST(SecureKey, MovesLeaveNothingBehind) {
  SecureKey key = SecureKey::generate();
  const std::string id = key.id();
  const std::uint32_t first = key.chacha_key().words[0];
  SecureKey moved = std::move(key);
  EXPECT_EQ(moved.id(), id);
  EXPECT_EQ(moved.chacha_key().words[0], first);
  EXPECT_THROW(key.chacha_key(), PrivacyError);  // NOLINT(bugprone-use-after-move)
  const auto* bytes = reinterpret_cast<const unsigned char*>(&key);
  for (std::size_t i = 0; i < sizeof(ChaChaKey); ++i) EXPECT_EQ(bytes[i], 0);
  SecureKey assigned = SecureKey::insecure_for_tests(3);
  assigned = std::move(moved);
  EXPECT_EQ(assigned.id(), id);
  EXPECT_FALSE(assigned.insecure());
}

TEST(SecureKey, ForkedChildIsRefused) {
  const SecureKey key = SecureKey::generate();
  ChaChaStream stream(key, StreamDomain::kNoise, 1);
  stream.next();  // more words lie in its buffer
  const PoissonSampler sampler(key, 0.5);
  EXPECT_TRUE(child_is_refused([&] { key.chacha_key(); }));
  EXPECT_TRUE(child_is_refused([&] { stream.next(); }));
  EXPECT_TRUE(child_is_refused([&] { sampler.draw(1, 10); }));
  EXPECT_FALSE(child_is_refused([] { SecureKey::generate().chacha_key(); }));
  EXPECT_NO_THROW(stream.next());
}

TEST(ChaChaStream, IsTheRfcKeyStreamInLittleEndianWords) {
  const SecureKey key = SecureKey::insecure_for_tests(4);
  std::vector<std::uint32_t> expected(16 * 100);
  chacha20_words_cpu(expected.data(), 0, 100, key.chacha_key(), {2, 7, 3});
  ChaChaStream stream(key, StreamDomain::kPoisson, 7, 3);
  std::vector<std::uint64_t> words(800);
  words[0] = stream.next();
  stream.fill(std::span(words).subspan(1, 300));
  stream.fill(std::span(words).subspan(301));
  EXPECT_EQ(std::memcmp(words.data(), expected.data(), 800 * 8), 0);
}

TEST(ChaChaStream, DomainsStepsAndIdsAreDifferentStreams) {
  const SecureKey key = SecureKey::insecure_for_tests(5);
  std::set<std::uint64_t> firsts;
  int streams = 0;
  for (const StreamDomain domain :
       {StreamDomain::kNoise, StreamDomain::kPoisson, StreamDomain::kSideStatistic})
    for (const std::int64_t step : {0, 1, 2, 3})
      for (const std::int64_t id : {0, 1, 2, 3}) {
        firsts.insert(ChaChaStream(key, domain, step, id).next());
        ++streams;
      }
  EXPECT_EQ(firsts.size(), static_cast<std::size_t>(streams));
}

TEST(MakeNonce, RefusesWhatWouldWrap) {
  const std::int64_t most = 0xffffffff;
  EXPECT_EQ(make_nonce(StreamDomain::kNoise, most, most).step, 0xffffffffu);
  EXPECT_THROW(make_nonce(StreamDomain::kNoise, most + 1), PrivacyError);
  EXPECT_THROW(make_nonce(StreamDomain::kNoise, 0, most + 1), PrivacyError);
  EXPECT_THROW(make_nonce(StreamDomain::kNoise, -1), PrivacyError);
}

TEST(RandomHex, HasTheLengthAskedForAndDiffers) {
  EXPECT_EQ(random_hex(8).size(), 16u);
  EXPECT_NE(random_hex(8), random_hex(8));
}

}  // namespace
}  // namespace sfumato
