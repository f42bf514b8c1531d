#pragma once
#include "sfumato/core/enum_names.h"

// What settings let people choose from, each choice with its names. The enumerations lie here,
// below the areas that act on them, because settings are declared before those areas. A choice is
// the enumeration and its table; the setting, its documentation and its messages follow.
namespace sfumato {

// data --------------------------------------------------------------------------------------------

/// Layouts of a source of private images; prepare.h says more of each.
enum class SourceFormat { kAuto, kFolder, kTar, kZip, kNpz, kNpy, kIdx, kCifar };
template <>
struct EnumNames<SourceFormat> {
  static constexpr std::string_view kWhat = "source format";
  static constexpr EnumName<SourceFormat> kTable[] = {
      {SourceFormat::kAuto, "auto"}, {SourceFormat::kFolder, "folder"}, {SourceFormat::kTar, "tar"},
      {SourceFormat::kZip, "zip"},   {SourceFormat::kNpz, "npz"},       {SourceFormat::kNpy, "npy"},
      {SourceFormat::kIdx, "idx"},   {SourceFormat::kCifar, "cifar"}};
};

/// What becomes of pictures that a decoder can only mend.
enum class DamagedPictures { kRefuse, kKeep };
template <>
struct EnumNames<DamagedPictures> {
  static constexpr std::string_view kWhat = "rule for damaged pictures";
  static constexpr EnumName<DamagedPictures> kTable[] = {{DamagedPictures::kRefuse, "refuse"},
                                                         {DamagedPictures::kKeep, "keep"}};
};

/// How samples of 16 bits come to 8.
enum class DepthRule {
  kFull,   ///< the upper 8 bits
  kMinMax  ///< two public numbers become 0 and 255
};
template <>
struct EnumNames<DepthRule> {
  static constexpr std::string_view kWhat = "depth rule";
  static constexpr EnumName<DepthRule> kTable[] = {{DepthRule::kFull, "full"},
                                                   {DepthRule::kMinMax, "min_max"}};
};

// mechanism ---------------------------------------------------------------------------------------

/// How a per-example gradient g over all trainable parameters is bounded to L2 norm C.
enum class Clipping {
  kFlat,       ///< g min(1, C / |g|)  (Abadi et al. 2016)
  kPerLayer,   ///< each parameter to C / sqrt(number of parameters); the sum is bounded by C
  kAutomatic,  ///< C g / (|g| + gamma)  (AUTO-S, Bu et al. 2022)
};
template <>
struct EnumNames<Clipping> {
  static constexpr std::string_view kWhat = "clipping";
  static constexpr EnumName<Clipping> kTable[] = {{Clipping::kFlat, "flat"},
                                                  {Clipping::kPerLayer, "per_layer"},
                                                  {Clipping::kAutomatic, "automatic"}};
};

/// Which pairs of data sets the guarantee holds for. "Record" is one image; with several records
/// per unit of privacy (mechanism.h) it is all of one unit's records.
enum class Adjacency {
  kAddRemove,   ///< one record is added or removed; the number of records is private
  kZeroOut,     ///< one record is replaced by one that contributes nothing; the number is public
  kReplaceOne,  ///< one record is replaced by any other; the number is public
};
template <>
struct EnumNames<Adjacency> {
  static constexpr std::string_view kWhat = "adjacency";
  static constexpr EnumName<Adjacency> kTable[] = {{Adjacency::kAddRemove, "add_remove"},
                                                   {Adjacency::kZeroOut, "zero_out"},
                                                   {Adjacency::kReplaceOne, "replace_one"}};
};

/// The accountants that exist.
enum class Accountant {
  kRdp,  ///< Renyi orders (rdp.h): an upper bound without a lower bracket
  kPld,  ///< privacy loss distributions (pld.h): a bracket around the exact value; the claim is its
         ///< upper end
};
template <>
struct EnumNames<Accountant> {
  static constexpr std::string_view kWhat = "accountant";
  static constexpr EnumName<Accountant> kTable[] = {{Accountant::kRdp, "rdp"},
                                                    {Accountant::kPld, "pld"}};
};

/// The law of the number of runs of which a private selection keeps the best (selection.h).
enum class SelectionFamily {
  kLogarithmic,       ///< eta 0: the cheapest in epsilon, a long tail of runs
  kGeometric,         ///< eta 1: steadier in compute
  kNegativeBinomial,  ///< any eta
};
template <>
struct EnumNames<SelectionFamily> {
  static constexpr std::string_view kWhat = "law of the number of runs";
  static constexpr EnumName<SelectionFamily> kTable[] = {
      {SelectionFamily::kLogarithmic, "logarithmic"},
      {SelectionFamily::kGeometric, "geometric"},
      {SelectionFamily::kNegativeBinomial, "negative_binomial"}};
};

// diffusion, with the names of diffusers' configurations ------------------------------------------

/// What the network predicts from x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps.
enum class Prediction {
  kEpsilon,     ///< eps
  kSample,      ///< x_0
  kVPrediction  ///< sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 (Salimans & Ho 2022)
};
template <>
struct EnumNames<Prediction> {
  static constexpr std::string_view kWhat = "prediction type";
  static constexpr EnumName<Prediction> kTable[] = {{Prediction::kEpsilon, "epsilon"},
                                                    {Prediction::kSample, "sample"},
                                                    {Prediction::kVPrediction, "v_prediction"}};
};

/// How β_t grows with the timestep (Ho et al. 2020; Nichol & Dhariwal 2021 for the cosine).
enum class BetaSchedule { kLinear, kScaledLinear, kSquaredCosCapV2, kSigmoid };
template <>
struct EnumNames<BetaSchedule> {
  static constexpr std::string_view kWhat = "noise schedule";
  static constexpr EnumName<BetaSchedule> kTable[] = {
      {BetaSchedule::kLinear, "linear"},
      {BetaSchedule::kScaledLinear, "scaled_linear"},
      {BetaSchedule::kSquaredCosCapV2, "squaredcos_cap_v2"},
      {BetaSchedule::kSigmoid, "sigmoid"}};
};

/// What a network is told of the noise, and what its output is scaled to.
enum class Parameterization {
  kVp,  ///< timesteps of a schedule of β; x_t as it is
  kEdm  ///< x_0 + sigma eps, scaled inputs and outputs (Karras et al. 2022)
};
template <>
struct EnumNames<Parameterization> {
  static constexpr std::string_view kWhat = "parameterization";
  static constexpr EnumName<Parameterization> kTable[] = {{Parameterization::kVp, "vp"},
                                                          {Parameterization::kEdm, "edm"}};
};

// gan ---------------------------------------------------------------------------------------------

/// What a discriminator learns from a record's image and its fakes, each by its score alone.
enum class GanLoss {
  kHinge,         ///< max(0, 1 - D(x)) + max(0, 1 + D(G(z)))  (Lim & Ye 2017)
  kLogistic,      ///< -log s(D(x)) - log(1 - s(D(G(z))))  (Goodfellow et al. 2014)
  kRelativistic,  ///< -log s(D(x) - D(G(z)))  (Jolicoeur-Martineau 2019, the pairing form)
};
template <>
struct EnumNames<GanLoss> {
  static constexpr std::string_view kWhat = "loss of a discriminator";
  static constexpr EnumName<GanLoss> kTable[] = {{GanLoss::kHinge, "hinge"},
                                                 {GanLoss::kLogistic, "logistic"},
                                                 {GanLoss::kRelativistic, "relativistic"}};
  static constexpr RefusedName kRefused[] = {
      {"relativistic_average",
       "compares a score with the average over the batch, so that the loss of one record depends "
       "on all others and clipping it bounds nothing; 'relativistic' pairs each record with its "
       "own fakes"}};
};

// optimizer ---------------------------------------------------------------------------------------

enum class OptimizerKind { kSgd, kAdam, kAdamW };
template <>
struct EnumNames<OptimizerKind> {
  static constexpr std::string_view kWhat = "optimizer";
  static constexpr EnumName<OptimizerKind> kTable[] = {{OptimizerKind::kSgd, "sgd"},
                                                       {OptimizerKind::kAdam, "adam"},
                                                       {OptimizerKind::kAdamW, "adamw"}};
};

/// Course of the learning rate after the warm-up.
enum class RateDecay { kConstant, kCosine };
template <>
struct EnumNames<RateDecay> {
  static constexpr std::string_view kWhat = "learning rate decay";
  static constexpr EnumName<RateDecay> kTable[] = {{RateDecay::kConstant, "constant"},
                                                   {RateDecay::kCosine, "cosine"}};
};

// performance -------------------------------------------------------------------------------------

/// Which algorithm each layer uses; kAuto takes the cheapest: by FLOPs and bytes on the CPU, by
/// measurement on a GPU. A layer that the wish does not fit uses kKeep.
enum class AlgorithmPolicy { kAuto, kKeep, kGram, kDirect };
template <>
struct EnumNames<AlgorithmPolicy> {
  static constexpr std::string_view kWhat = "layer algorithm";
  static constexpr EnumName<AlgorithmPolicy> kTable[] = {{AlgorithmPolicy::kAuto, "auto"},
                                                         {AlgorithmPolicy::kKeep, "keep"},
                                                         {AlgorithmPolicy::kGram, "gram"},
                                                         {AlgorithmPolicy::kDirect, "direct"}};
};

/// Where the network is computed.
enum class ComputeDevice {
  kCpu,
  kCuda  ///< the first GPU that CUDA_VISIBLE_DEVICES shows
};
template <>
struct EnumNames<ComputeDevice> {
  static constexpr std::string_view kWhat = "device";
  static constexpr EnumName<ComputeDevice> kTable[] = {{ComputeDevice::kCpu, "cpu"},
                                                       {ComputeDevice::kCuda, "cuda"}};
};

/// What a configuration asks for.
enum class DeviceChoice {
  kAuto,  ///< a GPU where there is one
  kCpu,
  kCuda
};
template <>
struct EnumNames<DeviceChoice> {
  static constexpr std::string_view kWhat = "device";
  static constexpr EnumName<DeviceChoice> kTable[] = {
      {DeviceChoice::kAuto, "auto"}, {DeviceChoice::kCpu, "cpu"}, {DeviceChoice::kCuda, "cuda"}};
};

/// What layers compute in; weights, norms, sums and noise stay float32 or better.
enum class Precision { kFp32, kTf32, kBf16, kAuto };
template <>
struct EnumNames<Precision> {
  static constexpr std::string_view kWhat = "precision";
  static constexpr EnumName<Precision> kTable[] = {{Precision::kFp32, "fp32"},
                                                   {Precision::kTf32, "tf32"},
                                                   {Precision::kBf16, "bf16"},
                                                   {Precision::kAuto, "auto"}};
};

/// Where the channels of images lie while a network trains on the CPU in float32.
enum class MemoryFormat { kAuto, kChannelsFirst, kChannelsLast };
template <>
struct EnumNames<MemoryFormat> {
  static constexpr std::string_view kWhat = "memory format";
  static constexpr EnumName<MemoryFormat> kTable[] = {
      {MemoryFormat::kAuto, "auto"},
      {MemoryFormat::kChannelsFirst, "channels_first"},
      {MemoryFormat::kChannelsLast, "channels_last"}};
};

// sample, with the names of diffusers' configurations ---------------------------------------------

/// How images are drawn from a diffusion network: each is a row of generate/diffusion/solvers.cpp.
enum class Sampler {
  kDdpm,
  kDdim,
  kEuler,       ///< Karras et al. 2022, algorithm 2 without its second-order correction
  kHeun,        ///< Karras et al. 2022, algorithm 2
  kDpmpp1,      ///< DPM-Solver++ of first order (Lu et al. 2022)
  kDpmpp2M,     ///< of second order, multistep
  kDpmpp3M,     ///< of third order, multistep
  kSdeDpmpp2M,  ///< of second order, multistep, for the SDE
  kUniPc        ///< UniPC (Zhao et al. 2023)
};
template <>
struct EnumNames<Sampler> {
  static constexpr std::string_view kWhat = "sampler";
  static constexpr EnumName<Sampler> kTable[] = {
      {Sampler::kDdpm, "ddpm"},        {Sampler::kDdim, "ddim"},
      {Sampler::kEuler, "euler"},      {Sampler::kHeun, "heun"},
      {Sampler::kDpmpp1, "dpmpp_1"},   {Sampler::kDpmpp2M, "dpmpp_2m"},
      {Sampler::kDpmpp3M, "dpmpp_3m"}, {Sampler::kSdeDpmpp2M, "sde_dpmpp_2m"},
      {Sampler::kUniPc, "unipc"}};
};

/// Which levels of noise the steps visit.
enum class SigmaSchedule {
  kAuto,        ///< those of the timesteps; of an EDM network karras
  kKarras,      ///< even in sigma^(1/rho) (Karras et al. 2022, equation 5)
  kExponential  ///< even in log sigma
};
template <>
struct EnumNames<SigmaSchedule> {
  static constexpr std::string_view kWhat = "sigma schedule";
  static constexpr EnumName<SigmaSchedule> kTable[] = {
      {SigmaSchedule::kAuto, "auto"},
      {SigmaSchedule::kKarras, "karras"},
      {SigmaSchedule::kExponential, "exponential"}};
};

/// Where the last step ends.
enum class FinalSigma { kZero, kSigmaMin };
template <>
struct EnumNames<FinalSigma> {
  static constexpr std::string_view kWhat = "end of the levels";
  static constexpr EnumName<FinalSigma> kTable[] = {{FinalSigma::kZero, "zero"},
                                                    {FinalSigma::kSigmaMin, "sigma_min"}};
};

/// Forms of one solver that differ in higher order.
enum class SolverType {
  kAuto,      ///< midpoint or bh2
  kMidpoint,  ///< of DPM-Solver++
  kHeun,      ///< of DPM-Solver++
  kBh1,       ///< of UniPC: B(h) = h
  kBh2        ///< of UniPC: B(h) = e^h - 1
};
template <>
struct EnumNames<SolverType> {
  static constexpr std::string_view kWhat = "solver type";
  static constexpr EnumName<SolverType> kTable[] = {{SolverType::kAuto, "auto"},
                                                    {SolverType::kMidpoint, "midpoint"},
                                                    {SolverType::kHeun, "heun"},
                                                    {SolverType::kBh1, "bh1"},
                                                    {SolverType::kBh2, "bh2"}};
};

/// How steps are spread over the timesteps.
enum class TimestepSpacing { kLeading, kTrailing, kLinspace };
template <>
struct EnumNames<TimestepSpacing> {
  static constexpr std::string_view kWhat = "timestep spacing";
  static constexpr EnumName<TimestepSpacing> kTable[] = {{TimestepSpacing::kLeading, "leading"},
                                                         {TimestepSpacing::kTrailing, "trailing"},
                                                         {TimestepSpacing::kLinspace, "linspace"}};
};

/// Variance of a DDPM step. Not diffusers' fixed_large_log, whose definition takes the square root
/// of a negative number.
enum class DdpmVariance { kFixedSmall, kFixedSmallLog, kFixedLarge };
template <>
struct EnumNames<DdpmVariance> {
  static constexpr std::string_view kWhat = "variance";
  static constexpr EnumName<DdpmVariance> kTable[] = {
      {DdpmVariance::kFixedSmall, "fixed_small"},
      {DdpmVariance::kFixedSmallLog, "fixed_small_log"},
      {DdpmVariance::kFixedLarge, "fixed_large"}};
};

/// Form of a corpus.
enum class CorpusFormat { kFolder, kWebDataset };
template <>
struct EnumNames<CorpusFormat> {
  static constexpr std::string_view kWhat = "corpus format";
  static constexpr EnumName<CorpusFormat> kTable[] = {{CorpusFormat::kFolder, "folder"},
                                                      {CorpusFormat::kWebDataset, "webdataset"}};
};

}  // namespace sfumato
