#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/core/choices.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/grad/gradient_engine.h"

namespace sfumato {

/// Networks and the size of the step that is timed on them.
struct StepCase {
  std::string name;
  nlohmann::json network;     ///< as of describe_networks
  int64_t examples = 8;       ///< physical batch B
  int64_t draws = 1;          ///< K; of a GAN the image and its fakes
  bool by_name_only = false;  ///< takes long on a CPU
  ComputeDevice device = ComputeDevice::kCpu;
  Precision precision = Precision::kFp32;
  MemoryFormat memory_format = MemoryFormat::kAuto;
};

/// "small": 1.6 M parameters, 28x28 grey, B = 32, K = 1. "cifar10": the 35.7 M parameters of
/// google/ddpm-cifar10-32, B = 4, K = 4. "dpdm-mnist": 1,758,625 parameters, 28x28 grey with ten
/// classes, B = 64, K = 32, about the network and the draws of DPDM on MNIST (Dockhorn et al. 2022,
/// 1.75 M parameters). "dcgan28": the norm-free DCGAN of configs/networks, 28x28 grey with ten
/// classes, whose discriminator trains, B = 64, an image and a fake. "resnet-gan28": the same of
/// the BigGAN-like networks, B = 16.
std::vector<StepCase> builtin_step_cases();
std::vector<std::string> step_case_names();
/// By name; UsageError for one that is not built in.
StepCase builtin_step_case(const std::string& name);
/// Arguments and DataErrors as of describe_networks; 2 draws where a discriminator trains.
StepCase step_case_from(const std::filesystem::path& path,
                        const std::filesystem::path& generator = {});

enum class StepKind { kPrivate, kPlain };

/// What one process does of a logical step.
struct StepShare {
  int64_t batches = 1;                            ///< physical batches that it adds
  std::shared_ptr<Communicator> ranks = nullptr;  ///< which do as much each; null: it is alone
};

/// One logical step, the private way and the plain way, on the same network and the same synthetic
/// images; for a GAN the discriminator's, with the fakes that the generator
/// makes for it, but not the generator's own steps. Noise comes from a test key and is charged to a
/// ledger in a temporary folder, so that everything a training step costs is in it. Where ranks
/// share a step, everything here is collective.
class StepBenchmark {
 public:
  StepBenchmark(const StepCase& step_case, AlgorithmPolicy policy, const StepShare& share = {});
  ~StepBenchmark();

  /// Seconds of a step with all that follows on the gradient: charge, noise and Adam for a private
  /// one, division and Adam for a plain one. `steps` of them run in a row and the clock is read
  /// when a GPU has done all: as in training, it computes while the host writes the ledger.
  double run(StepKind kind, int64_t steps = 1);
  /// The same without what follows on the gradient.
  double run_gradient(StepKind kind, int64_t steps = 1);

  int64_t parameters() const;
  /// Elements that ranks exchange: parameters, and gaps between them.
  int64_t exchanged() const;
  /// Whether the last gradient ran as one recorded graph.
  bool recorded() const;
  /// Of the last private step.
  const std::vector<LayerChoice>& choices() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// Largest resident set of this process so far, in bytes (VmHWM); 0 if unknown.
int64_t peak_resident_bytes();
/// From now on. False where the system does not let it be set back.
bool reset_peak_resident();

}  // namespace sfumato
