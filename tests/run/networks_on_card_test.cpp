// What a card says of two networks: as the ledger notes it, in its words of every version.
#include <gtest/gtest.h>

#include <string>

#include "sfumato/privacy/ledger.h"
#include "sfumato/report/privacy_card.h"
#include "src/run/run_card.h"

namespace sfumato {
namespace {

const std::string kHash(64, 'a');

bool said_by_discriminator(const ReleasedFiles& released) {
  PrivacyCard card;
  describe_networks(released, card);
  return card.by_discriminator;
}

TEST(NetworksOnACard, FollowFromTheLedgersNote) {
  EXPECT_TRUE(said_by_discriminator({kHash, kHash, {{"painter/config.json", kHash}}, true}));
  EXPECT_FALSE(said_by_discriminator({kHash, kHash, {{"generator/config.json", kHash}}, false}));
}

TEST(NetworksOnACard, FollowFromTheFilesWhereAnOlderLedgerNotesNothingElse) {
  EXPECT_TRUE(said_by_discriminator({kHash, kHash, {{"generator/config.json", kHash}}}));
  EXPECT_FALSE(said_by_discriminator({kHash, kHash, {{"unet/config.json", kHash}}}));
  EXPECT_FALSE(said_by_discriminator(ReleasedFiles{}));
}

TEST(NetworksOnACard, AReleasedDiscriminatorIsTiedToIt) {
  PrivacyCard card;
  const std::string file = "discriminator/diffusion_pytorch_model.safetensors";
  describe_networks({kHash, kHash, {{file, std::string(64, 'b')}}, true}, card);
  EXPECT_EQ(card.discriminator_sha256, std::string(64, 'b'));
}

}  // namespace
}  // namespace sfumato
