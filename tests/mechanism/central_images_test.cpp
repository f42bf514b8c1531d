// The stage of central images: sampling, sensitivity, noise on every class, a public divisor.
#include "sfumato/mechanism/central_images.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

#include "mechanism/stage_session.h"
#include "mechanism/striped_stores.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/poisson_sampler.h"

namespace sfumato {
namespace {

using namespace test;

class CentralImagesTest : public StripedStores {
 protected:
  /// With the same key every time: the same sampling and the same noise.
  at::Tensor release(int count, const StagePlan& stage, double divisor) {
    Session session({stage});
    const CentralImages central =
        release_central_images(store(0, count), stage, divisor, session.mechanism);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("central_images"),
              std::get<Phase>(stage.event).steps);
    return central.images;
  }
  static double norm(const at::Tensor& t) { return t.to(at::kDouble).norm().item<double>(); }
};

// Neighbouring stores under the same noise: what differs is one clipped image over the public
// divisor. A realised count as divisor would change everything.
TEST_F(CentralImagesTest, OneImageMovesItsOwnClassByAtMostTheClipNormOverThePublicDivisor) {
  for (const double clip : {8.0, 2.0}) {
    const StagePlan stage = central_stage(1, 1e-6, 2, clip);
    const double divisor = 5;
    const at::Tensor moved = (release(40, stage, divisor) - release(39, stage, divisor)) * divisor;
    for (int64_t r = 0; r < 2; ++r) {
      EXPECT_EQ(norm(moved[r][0]), 0) << "image 39 is of class 1";
      EXPECT_EQ(norm(moved[r][2]), 0);
      EXPECT_LE(norm(moved[r][1]), clip * (1 + 1e-4));  // float32 of the released means
      if (clip == 2.0) {
        EXPECT_NEAR(norm(moved[r][1]), clip, clip * 1e-4) << "its norm is above 2";
      } else {
        EXPECT_NEAR(moved[r][1][0][3][5].item<double>(), tiny_image(39)[3 * 8 + 5] / 127.5 - 1,
                    1e-4);
      }
    }
  }
}

TEST_F(CentralImagesTest, NoiseIsOnEveryPixelOfEveryClass) {
  const double sigma = 3, clip = 4, divisor = 10;
  const StagePlan stage = central_stage(0.3, sigma, 60, clip),
                  exact = central_stage(0.3, 1e-7, 60, clip);
  // The same key samples the same images, so almost no noise leaves the exact means.
  const at::Tensor noise = ((release(40, stage, divisor) - release(40, exact, divisor)) * divisor)
                               .to(at::kDouble)
                               .contiguous();
  for (int64_t c = 0; c < 3; ++c) {
    const at::Tensor one = noise.select(1, c).contiguous();
    expect_noise({one.const_data_ptr<double>(), one.const_data_ptr<double>() + one.numel()},
                 sigma * clip);
  }
}

TEST_F(CentralImagesTest, EachReleaseIsAnotherSample) {
  const at::Tensor images = release(40, central_stage(0.3, 1e-7, 20, 8), 1);
  double kept = 0;
  for (int64_t r = 0; r < 20; ++r) {
    if (r > 0) {
      EXPECT_GT(norm(images[r] - images[0]), 1);
    }
    kept += images[r].ne(0).any().item<bool>() ? 1 : 0;
  }
  EXPECT_EQ(kept, 20);
  // Summed over releases, each image came in at the sample rate: 40 images, 20 releases.
  const at::Tensor all = release(40, central_stage(1, 1e-7, 1, 8), 1)[0];
  const double ratio = (images.sum() / all.sum()).item<double>() / 20;
  EXPECT_NEAR(ratio, 0.3, kQuantile * std::sqrt(0.3 * 0.7 / 800) * 1.5);
}

// The records of a release are those of a stream that training never draws from.
TEST_F(CentralImagesTest, SamplesAreIndependentOfTrainings) {
  const at::Tensor images = release(40, central_stage(0.3, 1e-7, 5, 8), 1);
  const SecureKey key = SecureKey::insecure_for_tests(1);
  const RecordStore set = store(0, 40);
  const PoissonSampler sampler = PoissonSampler::of_stage(key, 0.3, 0);
  for (int64_t r = 0; r < 5; ++r) {
    double sum = 0, squares = 0;
    for (const int64_t record : sampler.draw(r, 40))
      for (const uint8_t value : set.pixels(record)) {
        sum += value / 127.5 - 1;
        squares += std::pow(value / 127.5 - 1, 2);
      }
    EXPECT_NEAR(images[r].to(at::kDouble).sum().item<double>(), sum, 1e-3);
    EXPECT_GT(squares, 1) << "something was sampled";
  }
}

TEST_F(CentralImagesTest, ReadsBackAndRefusesOtherFiles) {
  Session session({central_stage(0.5, 2, 3, 8)});
  const CentralImages central =
      release_central_images(store(0, 40), central_stage(0.5, 2, 3, 8), 4, session.mechanism);
  central.save(folder / "c.safetensors");
  EXPECT_TRUE(CentralImages::load(folder / "c.safetensors").images.equal(central.images));
  CentralImages{central.images[0]}.save(folder / "d.safetensors");
  EXPECT_THROW(CentralImages::load(folder / "d.safetensors"), DataError);
  CentralImages{central.images / 0.0}.save(folder / "e.safetensors");
  EXPECT_THROW(CentralImages::load(folder / "e.safetensors"), DataError);
  EXPECT_THROW(CentralImages::load(folder / "none.safetensors"), DataError);
}

TEST_F(CentralImagesTest, AChargeThatFailsReleasesNothing) {
  Session session({central_stage(0.5, 2, 3, 8)});
  (void)session.mechanism.release(StatisticSum(1, 1, 8), central_stage(0.5, 2, 3, 8));
  EXPECT_THROW(
      release_central_images(store(0, 40), central_stage(0.5, 2, 3, 8), 4, session.mechanism),
      PrivacyError)
      << "its last release is one more than the plan has";
  Session other({central_stage(0.5, 2, 3, 8)});
  for (const double divisor : {0.0, -1.0, std::nan("")})
    EXPECT_THROW(
        release_central_images(store(0, 40), central_stage(0.5, 2, 3, 8), divisor, other.mechanism),
        PrivacyError);
}

}  // namespace
}  // namespace sfumato
