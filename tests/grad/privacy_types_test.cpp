// The privacy argument as types: what must not compile, asked of the compiler.
#include <gtest/gtest.h>

#include <type_traits>

#include "sfumato/grad/clipped_sum.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/grad/parameter_slices.h"
#include "sfumato/grad/public_gradient.h"
#include "sfumato/privacy/ledger.h"

namespace sfumato {
namespace {

using Tensors = std::vector<at::Tensor>;

// A clipped sum is made by the engine alone, and there is only one of each.
static_assert(!std::is_default_constructible_v<ClippedSum>);
static_assert(!std::is_constructible_v<ClippedSum, Tensors, double, std::shared_ptr<const void>,
                                       std::shared_ptr<const ParameterSlices>>);
static_assert(!std::is_constructible_v<ClippedSum, Tensors, double>);
static_assert(!std::is_constructible_v<ClippedSum, Tensors>);
static_assert(!std::is_copy_constructible_v<ClippedSum>);
static_assert(!std::is_copy_assignable_v<ClippedSum>);
static_assert(std::is_move_constructible_v<ClippedSum>);

// A noisy gradient is not made from tensors, nor from a clipped sum without a charge.
static_assert(!std::is_default_constructible_v<NoisyGradient>);
static_assert(!std::is_constructible_v<NoisyGradient, Tensors>);
static_assert(!std::is_constructible_v<NoisyGradient, ClippedSum>);
static_assert(!std::is_convertible_v<Tensors, NoisyGradient>);
static_assert(!std::is_convertible_v<ClippedSum, NoisyGradient>);

template <typename Sum, typename Charge>
constexpr bool kCanRelease = requires(Sum&& sum, Charge&& charge, const SecureKey& key) {
  NoisyGradient::release(std::forward<Sum>(sum), 1.0, 1.0, key, std::forward<Charge>(charge));
};
static_assert(kCanRelease<ClippedSum, ChargedStep>);
static_assert(!kCanRelease<ClippedSum&, ChargedStep>, "a sum is consumed");
static_assert(!kCanRelease<ClippedSum, ChargedStep&>, "a charge is consumed");
static_assert(!kCanRelease<Tensors, ChargedStep>);
static_assert(!kCanRelease<ClippedSum, int64_t>);

// The optimizer takes neither tensors nor sums, not even in braces: whoever moves weights without
// noise writes PublicGradient.
template <typename... Members>
concept MakesPublicGradientUnnamed = requires(void take(PublicGradient&&), Members... members) {
  take({std::move(members)...});
};
static_assert(std::is_constructible_v<PublicGradient, Tensors, double>);
static_assert(!MakesPublicGradientUnnamed<Tensors, double>);
static_assert(!std::is_convertible_v<Tensors, PublicGradient>);
static_assert(!std::is_convertible_v<NoisyGradient, PublicGradient>);
static_assert(!std::is_constructible_v<PublicGradient, ClippedSum, double>);

template <typename Gradient>
concept Moves = requires(Optimizer& optimizer, Gradient&& gradient) {
  optimizer.step(std::forward<Gradient>(gradient), 0.1);
};
template <typename Sums>
concept MovesInBraces = requires(Optimizer& optimizer, Sums&& sums) {
  optimizer.step({std::forward<Sums>(sums), 16.0}, 0.1);
};
static_assert(Moves<NoisyGradient> && Moves<PublicGradient>);
static_assert(!Moves<NoisyGradient&>, "a noisy gradient is consumed");
static_assert(!Moves<Tensors> && !Moves<ClippedSum>);
static_assert(!MovesInBraces<Tensors> && !MovesInBraces<ClippedSum>);

// A charge is made by the ledger alone, and pays once.
static_assert(!std::is_default_constructible_v<ChargedStep>);
static_assert(!std::is_constructible_v<ChargedStep, int64_t>);
static_assert(!std::is_constructible_v<ChargedStep, int64_t, int64_t, std::string>);
static_assert(!std::is_copy_constructible_v<ChargedStep>);
static_assert(!std::is_copy_assignable_v<ChargedStep>);

// A key is not copied: two owners would draw the same noise.
static_assert(!std::is_default_constructible_v<SecureKey>);
static_assert(!std::is_copy_constructible_v<SecureKey>);
static_assert(!std::is_copy_assignable_v<SecureKey>);

TEST(PrivacyTypes, AreCheckedByTheCompiler) { SUCCEED(); }

}  // namespace
}  // namespace sfumato
