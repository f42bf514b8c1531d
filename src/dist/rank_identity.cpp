#include "sfumato/dist/rank_identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr int64_t kMostRanks = 65536;
constexpr std::uint16_t kDefaultPort = 29500;

/// What a launcher says: who this process is among how many, and in which variables that stands.
struct Place {
  int64_t rank = 0;
  int64_t size = 1;
  std::string source;
};

/// Numbers of the environment, with errors that name the variable.
class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  std::optional<std::string> text(const std::string& name) const { return environment_(name); }
  bool has(const std::string& name) const { return text(name).has_value(); }
  std::optional<int64_t> number(const std::string& name) const {
    const std::optional<std::string> value = text(name);
    if (!value) return {};
    const std::optional<int64_t> result = parse_int64(*value);
    if (!result || *result < 0)
      throw UsageError(
          fmt::format("the environment variable {} is '{}', which is no number of a process or of "
                      "processes",
                      name, *value));
    return result;
  }
  int64_t required(const std::string& name, const std::string& because) const {
    const std::optional<int64_t> value = number(name);
    if (!value)
      throw UsageError(
          fmt::format("the environment variable {} is missing, but {} is set", name, because));
    return *value;
  }

 private:
  const Environment& environment_;
};

Place checked(const Place& place) {
  if (place.size < 1 || place.size > kMostRanks || place.rank >= place.size)
    throw UsageError(fmt::format(
        "{}: there is no process {} among {} (they count from 0); correct what sets these "
        "environment variables",
        place.source, place.rank, place.size));
  return place;
}

Place place_in(const Variables& variables, const std::string& rank, const std::string& size) {
  return checked({variables.required(rank, size), variables.required(size, rank),
                  fmt::format("{}={} and {}={}", rank, variables.text(rank).value_or(""), size,
                              variables.text(size).value_or(""))});
}

std::optional<Place> place_in_slurm(const Variables& variables) {
  // SLURM_NTASKS is also in batch scripts and shells, which are one process however many tasks the
  // job may start; this one is srun's alone.
  if (variables.number("SLURM_STEP_NUM_TASKS").value_or(1) <= 1) return {};
  return place_in(variables, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS");
}

/// Started by a program of MPI, which under Slurm starts its daemons as steps of their own: then
/// Slurm's numbers are those of the daemon.
bool mpi_starts_processes(const Variables& variables) {
  return variables.has("OMPI_COMM_WORLD_RANK") || variables.has("MPI_LOCALRANKID");
}

std::optional<Place> place_in_mpi(const Variables& variables) {
  for (const char* prefix : {"OMPI_COMM_WORLD_", "PMI_"}) {
    const std::string rank = std::string(prefix) + "RANK", size = std::string(prefix) + "SIZE";
    if (variables.number(size).value_or(1) > 1) return place_in(variables, rank, size);
  }
  return {};
}

void require_agreement(const Place& place, const std::optional<Place>& other) {
  if (other && (place.rank != other->rank || place.size != other->size))
    throw UsageError(fmt::format(
        "two launchers disagree on which process this is: {}, but {}. Unset the variables of the "
        "one that did not start it, or set SFUMATO_LAUNCHER=none for a process alone",
        place.source, other->source));
}

std::string address(const Variables& variables, const std::string& name, const Place& place) {
  if (const std::optional<std::string> host = variables.text(name)) return *host;
  throw UsageError(fmt::format(
      "{}, but the environment variable {} is missing: the name or address of the machine of "
      "process 0, where the processes meet",
      place.source, name));
}

std::uint16_t port(const Variables& variables, const std::string& name, std::uint16_t otherwise) {
  const int64_t number = variables.number(name).value_or(otherwise);
  if (number < 1 || number > 65535)
    throw UsageError(
        fmt::format("the environment variable {} is {}, which is no port", name, number));
  return static_cast<std::uint16_t>(number);
}

/// The first of Slurm's list of hosts: "r[0-1]n[07,9-12],x" begins with r0n07.
std::string first_host(std::string_view list) {
  std::string host;
  for (std::size_t i = 0; i < list.size() && list[i] != ','; ++i) {
    if (list[i] != '[') {
      host += list[i];
      continue;
    }
    const std::size_t close = std::min(list.find(']', i), list.size());
    const std::string_view numbers = list.substr(i + 1, close - i - 1);
    host += numbers.substr(0, numbers.find_first_of(",-"));
    i = close;
  }
  return host;
}

RankIdentity identity_at(const Place& place, std::string launcher) {
  RankIdentity identity;
  identity.rank = place.rank;
  identity.size = place.size;
  identity.launcher = std::move(launcher);
  return identity;
}

RankIdentity by_torchrun(const Variables& variables) {
  const Place place = place_in(variables, "RANK", "WORLD_SIZE");
  RankIdentity identity = identity_at(place, "torchrun");
  if (place.size == 1) return identity;
  identity.host = address(variables, "MASTER_ADDR", place);
  identity.port = port(variables, "MASTER_PORT", kDefaultPort);
  identity.store_is_served = variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  // The agent's store outlives an attempt, and still holds what was in it.
  identity.attempt = fmt::format("{}.{}", variables.text("TORCHELASTIC_RUN_ID").value_or(""),
                                 variables.number("TORCHELASTIC_RESTART_COUNT").value_or(0));
  return identity;
}

/// WORLD_SIZE, with RANK or what stands for it.
RankIdentity by_hand(const Variables& variables, const std::optional<Place>& mpi,
                     const std::optional<Place>& slurm) {
  const bool indexed = !variables.has("RANK") && variables.has("JOB_COMPLETION_INDEX");
  const Place place = place_in(variables, indexed ? "JOB_COMPLETION_INDEX" : "RANK", "WORLD_SIZE");
  require_agreement(place, mpi);
  if (!mpi_starts_processes(variables)) require_agreement(place, slurm);
  RankIdentity identity = identity_at(place, "RANK and WORLD_SIZE");
  if (place.size == 1) return identity;
  identity.host = address(variables, "MASTER_ADDR", place);
  identity.port = port(variables, "MASTER_PORT", kDefaultPort);
  return identity;
}

RankIdentity by_mpi(const Variables& variables, const Place& place) {
  RankIdentity identity = identity_at(place, "MPI");
  const bool one_host = variables.number("OMPI_COMM_WORLD_LOCAL_SIZE").value_or(0) == place.size ||
                        variables.number("MPI_LOCALNRANKS").value_or(0) == place.size;
  identity.host = one_host && !variables.has("MASTER_ADDR")
                      ? "127.0.0.1"
                      : address(variables, "MASTER_ADDR", place);
  identity.port = port(variables, "MASTER_PORT", kDefaultPort);
  return identity;
}

RankIdentity by_slurm(const Variables& variables, const Place& place) {
  RankIdentity identity = identity_at(place, "Slurm");
  const int64_t job = variables.number("SLURM_JOB_ID").value_or(0);
  const int64_t step = variables.number("SLURM_STEP_ID").value_or(0);
  for (const char* name : {"SLURM_JOB_NODELIST", "SLURM_STEP_NODELIST"})
    if (const std::optional<std::string> list = variables.text(name))
      identity.host = first_host(*list);
  if (variables.has("MASTER_ADDR") || identity.host.empty())
    identity.host = address(variables, "MASTER_ADDR", place);
  // Apart for jobs and steps that share a machine.
  identity.port = port(variables, "MASTER_PORT",
                       static_cast<std::uint16_t>(15000 + job % 1000 * 10 + step % 10));
  identity.attempt =
      fmt::format("{}.{}.{}", job, step, variables.number("SLURM_RESTART_COUNT").value_or(0));
  return identity;
}

RankIdentity by_kubeflow(const Variables& variables) {
  const std::string each = variables.text("PET_NPROC_PER_NODE").value_or("1");
  const std::string nodes = variables.text("PET_NNODES").value_or("1");
  if (nodes == "1" && (each == "1" || each == "auto")) return {};
  if (each != "1" || nodes.find(':') != std::string::npos)
    throw UsageError(fmt::format(
        "PET_NNODES={} and PET_NPROC_PER_NODE={} are meant for torchrun, which this process was "
        "not "
        "started by: start it as torchrun --no-python sfumato ..., or set PET_NPROC_PER_NODE=1 "
        "and a fixed PET_NNODES",
        nodes, each));
  const Place place = place_in(variables, "PET_NODE_RANK", "PET_NNODES");
  RankIdentity identity = identity_at(place, "Kubeflow");
  identity.host = address(variables, "PET_MASTER_ADDR", place);
  identity.port = port(variables, "PET_MASTER_PORT", kDefaultPort);
  return identity;
}

/// RANK or WORLD_SIZE alone, where another launcher says the rest.
void require_agreement_of_rest(const Variables& variables, const Place& place) {
  Place other = place;
  other.rank = variables.number("RANK").value_or(place.rank);
  other.size = variables.number("WORLD_SIZE").value_or(place.size);
  const char* const name = variables.has("RANK") ? "RANK" : "WORLD_SIZE";
  other.source = fmt::format("{}={}", name, variables.text(name).value_or(""));
  require_agreement(place, other);
}

}  // namespace

RankIdentity identity_of_environment(const Environment& environment) {
  const Variables variables(environment);
  if (const std::optional<std::string> launcher = variables.text("SFUMATO_LAUNCHER")) {
    if (*launcher == "none") return {};
    throw UsageError(fmt::format(
        "the environment variable SFUMATO_LAUNCHER is '{}'; it may only be 'none'", *launcher));
  }
  if (variables.has("TORCHELASTIC_RUN_ID")) return by_torchrun(variables);
  const std::optional<Place> mpi = place_in_mpi(variables), slurm = place_in_slurm(variables);
  const bool rank = variables.has("RANK"), size = variables.has("WORLD_SIZE");
  const std::optional<Place>& other = mpi ? mpi : slurm;
  if ((rank && size) || (size && !other && variables.has("JOB_COMPLETION_INDEX")))
    return by_hand(variables, mpi, slurm);
  if (other) {
    if (rank || size) require_agreement_of_rest(variables, *other);
    if (mpi && !mpi_starts_processes(variables)) require_agreement(*mpi, slurm);
    return mpi ? by_mpi(variables, *mpi) : by_slurm(variables, *slurm);
  }
  if (variables.has("PET_NNODES")) return by_kubeflow(variables);
  if (rank || variables.number("WORLD_SIZE").value_or(1) != 1) (void)by_hand(variables, mpi, slurm);
  return {};
}

RankIdentity identity_of_environment() {
  return identity_of_environment([](const std::string& name) -> std::optional<std::string> {
    const char* const value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') return {};
    return value;
  });
}

}  // namespace sfumato
