// Who a process is, from environments as launchers make them.
#include "sfumato/dist/rank_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

RankIdentity identity_in(const Variables& variables) {
  return identity_of_environment([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return {};
    return found->second;
  });
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

std::string refusal(const Variables& variables) {
  return test::error_message<UsageError>([&] { identity_in(variables); });
}

void expect_place(const RankIdentity& identity, int64_t rank, int64_t size, const std::string& host,
                  int port) {
  EXPECT_EQ(identity.rank, rank);
  EXPECT_EQ(identity.size, size);
  EXPECT_EQ(identity.host, host);
  EXPECT_EQ(identity.port, port);
}

void expect_alone(const Variables& variables) { expect_place(identity_in(variables), 0, 1, "", 0); }

/// What srun --ntasks=6 on three nodes gives task 4.
const Variables kSlurmStep = {{"SLURM_JOB_ID", "48213"},
                              {"SLURM_STEP_ID", "2"},
                              {"SLURM_PROCID", "4"},
                              {"SLURM_LOCALID", "0"},
                              {"SLURM_NODEID", "2"},
                              {"SLURM_NTASKS", "6"},
                              {"SLURM_STEP_NUM_TASKS", "6"},
                              {"SLURM_JOB_NODELIST", "gpu[011-013]"},
                              {"SLURM_STEP_NODELIST", "gpu[012-013,015]"}};
/// torchrun --nproc-per-node=2 on the second of two nodes, started again once.
const Variables kTorchrun = {{"RANK", "3"},
                             {"WORLD_SIZE", "4"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "2"},
                             {"MASTER_ADDR", "node-a"},
                             {"MASTER_PORT", "41233"},
                             {"TORCHELASTIC_RUN_ID", "job7"},
                             {"TORCHELASTIC_RESTART_COUNT", "1"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
const Variables kByHand = {
    {"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "10.0.0.7"}, {"MASTER_PORT", "30001"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "2"},
                            {"OMPI_COMM_WORLD_SIZE", "3"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"},
                            {"PMIX_RANK", "2"}};
const Variables kKubeflow = {{"PET_NNODES", "3"},          {"PET_NPROC_PER_NODE", "1"},
                             {"PET_NODE_RANK", "2"},       {"PET_MASTER_ADDR", "run-node-0-0.run"},
                             {"PET_MASTER_PORT", "29500"}, {"JOB_COMPLETION_INDEX", "2"}};

TEST(RankIdentity, WithoutALauncherIsAlone) {
  expect_alone({});
  EXPECT_EQ(identity_in({}).launcher, "none");
  expect_alone({{"PATH", "/bin"}, {"MASTER_ADDR", "node-a"}});
  expect_alone({{"WORLD_SIZE", "1"}});
}

TEST(RankIdentity, OfTorchrunIsInTheStoreOfItsAgentApartByAttempt) {
  const RankIdentity identity = identity_in(kTorchrun);
  expect_place(identity, 3, 4, "node-a", 41233);
  EXPECT_EQ(identity.launcher, "torchrun");
  EXPECT_TRUE(identity.store_is_served);
  EXPECT_NE(identity.attempt,
            identity_in(with(kTorchrun, {{"TORCHELASTIC_RESTART_COUNT", "2"}})).attempt);
  EXPECT_NE(identity.attempt,
            identity_in(with(kTorchrun, {{"TORCHELASTIC_RUN_ID", "job8"}})).attempt);
  EXPECT_FALSE(
      identity_in(with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).store_is_served);
}

TEST(RankIdentity, OfTorchrunUnderSlurmIsNotTheAgents) {
  expect_place(identity_in(with(kSlurmStep, kTorchrun)), 3, 4, "node-a", 41233);
}

TEST(RankIdentity, OfASlurmStepMeetsOnItsFirstHost) {
  const RankIdentity identity = identity_in(kSlurmStep);
  expect_place(identity, 4, 6, "gpu012", 15000 + 2132);
  EXPECT_EQ(identity.launcher, "Slurm");
  EXPECT_FALSE(identity.store_is_served);
  EXPECT_NE(identity.attempt,
            identity_in(with(kSlurmStep, {{"SLURM_RESTART_COUNT", "1"}})).attempt);
  const auto host = [](const char* list) {
    return identity_in(with(kSlurmStep, {{"SLURM_STEP_NODELIST", list}})).host;
  };
  EXPECT_EQ(host("node-a,node-b"), "node-a");
  EXPECT_EQ(host("r[0-1]n[07,9-12],x"), "r0n07");
  EXPECT_EQ(host("login"), "login");
  EXPECT_EQ(host("n[3]-ib"), "n3-ib");
  expect_place(identity_in(with(kSlurmStep, {{"MASTER_ADDR", "10.1.1.1"}, {"MASTER_PORT", "444"}})),
               4, 6, "10.1.1.1", 444);
}

TEST(RankIdentity, OfABatchScriptAShellAndASingleTaskIsAlone) {
  Variables batch = kSlurmStep;  // has the job's tasks, and is process 0
  batch.erase("SLURM_STEP_NUM_TASKS");
  batch["SLURM_PROCID"] = "0";
  expect_alone(batch);
  Variables shell = batch;  // of salloc
  shell.erase("SLURM_PROCID");
  expect_alone(shell);
  expect_alone(with(batch, {{"SLURM_STEP_NUM_TASKS", "1"}}));
}

TEST(RankIdentity, OfMpiOnOneHostNeedsNoAddress) {
  const RankIdentity identity = identity_in(kOpenMpi);
  expect_place(identity, 2, 3, "127.0.0.1", 29500);
  EXPECT_EQ(identity.launcher, "MPI");
  expect_place(identity_in({{"PMI_RANK", "1"},
                            {"PMI_SIZE", "4"},
                            {"MPI_LOCALRANKID", "1"},
                            {"MPI_LOCALNRANKS", "2"},
                            {"MASTER_ADDR", "head"}}),
               1, 4, "head", 29500);
  EXPECT_THAT(refusal({{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}, {"MPI_LOCALNRANKS", "2"}}),
              AllOf(HasSubstr("PMI_RANK=1"), HasSubstr("MASTER_ADDR")));
}

// mpirun starts its daemons, one on each node, as a step of Slurm, whose numbers the processes see.
TEST(RankIdentity, OfMpiUnderSlurmIsNotTheDaemons) {
  expect_place(identity_in(with(kSlurmStep, kOpenMpi)), 2, 3, "127.0.0.1", 29500);
  // srun itself can speak PMI: then both are of one launcher.
  EXPECT_THAT(
      refusal(with(kSlurmStep, {{"PMI_RANK", "1"}, {"PMI_SIZE", "6"}, {"MASTER_ADDR", "head"}})),
      AllOf(HasSubstr("PMI_RANK=1"), HasSubstr("SLURM_PROCID=4")));
}

TEST(RankIdentity, ByHandNeedsAnAddress) {
  expect_place(identity_in(kByHand), 1, 2, "10.0.0.7", 30001);
  Variables without = kByHand;
  without.erase("MASTER_ADDR");
  EXPECT_THAT(refusal(without), HasSubstr("MASTER_ADDR"));
  without = kByHand;
  without.erase("MASTER_PORT");
  EXPECT_EQ(identity_in(without).port, 29500);
  expect_alone({{"RANK", "0"}, {"WORLD_SIZE", "1"}});
}

TEST(RankIdentity, OfAnIndexedJobNeedsItsSize) {
  expect_alone({{"JOB_COMPLETION_INDEX", "3"}});
  expect_place(
      identity_in(
          {{"JOB_COMPLETION_INDEX", "3"}, {"WORLD_SIZE", "5"}, {"MASTER_ADDR", "run-0.run"}}),
      3, 5, "run-0.run", 29500);
}

TEST(RankIdentity, OfKubeflowIsThePods) {
  expect_place(identity_in(kKubeflow), 2, 3, "run-node-0-0.run", 29500);
  expect_alone(with(kKubeflow, {{"PET_NNODES", "1"}, {"PET_NODE_RANK", "0"}}));
  for (const Variables& several :
       {Variables{{"PET_NPROC_PER_NODE", "8"}}, Variables{{"PET_NPROC_PER_NODE", "auto"}},
        Variables{{"PET_NNODES", "1:4"}}})
    EXPECT_THAT(refusal(with(kKubeflow, several)), HasSubstr("torchrun --no-python"));
}

TEST(RankIdentity, RefusesLaunchersThatDisagreeByTheirVariables) {
  const std::string text = refusal(with(kSlurmStep, kByHand));
  EXPECT_THAT(text, AllOf(HasSubstr("RANK=1 and WORLD_SIZE=2"),
                          HasSubstr("SLURM_PROCID=4 and SLURM_STEP_NUM_TASKS=6"),
                          HasSubstr("SFUMATO_LAUNCHER=none")));
  const Variables alike = with(kByHand, {{"RANK", "4"}, {"WORLD_SIZE", "6"}});
  expect_place(identity_in(with(kSlurmStep, alike)), 4, 6, "10.0.0.7", 30001);
  EXPECT_THAT(refusal(with(kOpenMpi, kByHand)), HasSubstr("OMPI_COMM_WORLD_RANK=2"));
  EXPECT_THAT(refusal(with(kSlurmStep, {{"WORLD_SIZE", "4"}})), HasSubstr("WORLD_SIZE=4"));
  expect_place(identity_in(with(kSlurmStep, {{"WORLD_SIZE", "6"}})), 4, 6, "gpu012", 17132);
  expect_alone(with(with(kSlurmStep, kByHand), {{"SFUMATO_LAUNCHER", "none"}}));
}

TEST(RankIdentity, RefusesWhatIsNoPlaceByName) {
  const auto by_hand = [](const Variables& more) { return refusal(with(kByHand, more)); };
  EXPECT_THAT(by_hand({{"RANK", "2"}}), HasSubstr("RANK=2 and WORLD_SIZE=2"));
  EXPECT_THAT(by_hand({{"WORLD_SIZE", "0"}}), HasSubstr("WORLD_SIZE=0"));
  EXPECT_THAT(by_hand({{"WORLD_SIZE", "1000000"}}), HasSubstr("WORLD_SIZE=1000000"));
  EXPECT_THAT(by_hand({{"RANK", "-1"}}), HasSubstr("RANK is '-1'"));
  EXPECT_THAT(by_hand({{"RANK", "one"}}), HasSubstr("RANK is 'one'"));
  EXPECT_THAT(by_hand({{"MASTER_PORT", "70000"}}), HasSubstr("MASTER_PORT is 70000"));
  EXPECT_THAT(refusal({{"RANK", "1"}}), HasSubstr("WORLD_SIZE is missing"));
  EXPECT_THAT(refusal({{"WORLD_SIZE", "2"}}), HasSubstr("RANK is missing"));
  EXPECT_THAT(refusal(with(kTorchrun, {{"RANK", "4"}})), HasSubstr("RANK=4"));
  EXPECT_THAT(refusal({{"SFUMATO_LAUNCHER", "slurm"}}), HasSubstr("SFUMATO_LAUNCHER is 'slurm'"));
}

}  // namespace
}  // namespace sfumato
