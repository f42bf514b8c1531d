// What a file and overrides may hold, and every kind of mistake with its place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "load_helpers.h"
#include "sfumato/config/training_cautions.h"

namespace sfumato {
namespace {

using test::load_text;
using test::mistakes_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST(Load, NothingGivesDefaults) {
  const auto config = load_config(std::nullopt, {});
  EXPECT_EQ(config->run.dir(), "runs/default");
  EXPECT_EQ(config->mechanism.delta(), 1e-5);
  EXPECT_EQ(config->model.trainable(), std::vector<std::string>{"*"});
  EXPECT_TRUE(config->run.dir.is_default());
}

TEST(Load, EmptyDocumentsGiveDefaults) {
  for (const char* text : {"", "\n\n", "# only a comment\n", "---\n", "run:\n", "{}",
                           "run: {}\ndata:\n", "\xEF\xBB\xBF", "\xEF\xBB\xBFrun:\n  seed: 0\n"})
    EXPECT_EQ(load_text(text)->optimizer.learning_rate(), 1e-3) << text;
}

TEST(Load, ReadsBlockAndFlowStyle) {
  const auto config = load_text(
      "run:\n  dir: runs/x y\n  seed: +7\nmodel:\n  trainable:\n    - '*attn*'\n    - conv_in.*\n"
      "mechanism: {noise_multiplier: 1.5, clipping: per_layer}\ndata:\n  skip_unreadable: true\n");
  EXPECT_EQ(config->run.dir(), "runs/x y");
  EXPECT_EQ(config->run.seed(), 7);
  EXPECT_EQ(config->model.trainable(), (std::vector<std::string>{"*attn*", "conv_in.*"}));
  EXPECT_EQ(config->mechanism.noise_multiplier(), 1.5);
  EXPECT_EQ(config->mechanism.clipping(), Clipping::kPerLayer);
  EXPECT_TRUE(config->data.skip_unreadable());
}

TEST(Load, LaterSourcesWin) {
  const auto config = load_text("run:\n  seed: 1\n  log_every: 5\n",
                                {"run.seed=2", "run.seed=3", "optimizer.name=sgd"});
  EXPECT_EQ(config->run.seed(), 3);
  EXPECT_EQ(config->run.log_every(), 5);
  EXPECT_EQ(config->optimizer.name(), OptimizerKind::kSgd);
}

TEST(Load, ProvenanceNamesFileAndLine) {
  const test::TempFolder folder;
  const auto path = folder / "x.yaml";
  std::ofstream(path) << "run:\n  seed: 1\n\n  log_every: 5\n";
  const auto config = load_config(path, std::vector<std::string>{"run.seed=2"});
  EXPECT_EQ(config->run.seed.provenance(), "command line");
  EXPECT_EQ(config->run.log_every.provenance(), path.string() + ":4");
  EXPECT_EQ(config->run.dir.provenance(), "default");
}

TEST(Load, MissingFileOrFolderIsAMistakeOfUsage) {
  const test::TempFolder folder;
  EXPECT_THROW(load_config(folder / "none.yaml", {}), UsageError);
  EXPECT_THROW(load_config(folder.path(), {}), UsageError);
}

TEST(Load, AStageThatNothingBeginsWithIsACaution) {
  const std::string stages = "mechanism.stages.";
  const auto cautions = [](std::vector<std::string> overrides) {
    overrides.emplace_back("mechanism.target_epsilon=8");
    return training_cautions(*load_text("", overrides));
  };
  const std::string central = stages + "central_images.epsilon=1",
                    embedding = stages + "mean_embedding.epsilon=1",
                    histogram = stages + "label_histogram.epsilon=1";
  EXPECT_THAT(cautions({}), SizeIs(0));
  EXPECT_THAT(cautions({histogram, "data.num_classes=3"}), SizeIs(0));
  EXPECT_THAT(cautions({central}), ElementsAre(HasSubstr("set warmup.steps, or leave")));
  EXPECT_THAT(cautions({central, "warmup.steps=3"}), SizeIs(0));
  EXPECT_THAT(cautions({embedding, central, "warmup.steps=3"}),
              ElementsAre(HasSubstr("set warmup.embedding.steps, or leave")));
  const std::string gaussians = stages + "class_gaussians.epsilon=1";
  EXPECT_THAT(cautions({gaussians}),
              ElementsAre(HasSubstr("set warmup.gaussians.steps, or leave")));
  EXPECT_THAT(cautions({gaussians, "warmup.gaussians.steps=3"}), SizeIs(0));
  EXPECT_THAT(cautions({embedding, "warmup.embedding.steps=3"}), SizeIs(0));
  const std::vector<std::string> query = {stages + "semantic_query.epsilon=1",
                                          stages + "semantic_query.public_store=public"};
  EXPECT_THAT(cautions(query), ElementsAre(HasSubstr("set warmup.semantic.steps, or leave")));
  EXPECT_THAT(cautions({query[0], query[1], "warmup.semantic.steps=3"}), SizeIs(0));
  const std::string means = stages + "feature_means.epsilon=1";
  EXPECT_THAT(cautions({means}), ElementsAre(AllOf(HasSubstr("sample.candidates (default) is 1"),
                                                   HasSubstr("nothing is chosen by it"))));
  EXPECT_THAT(cautions({means, "sample.candidates=2"}), SizeIs(0));
  const std::string classifier = stages + "feature_classifier.epsilon=1";
  EXPECT_THAT(cautions({means, classifier, "data.num_classes=2", "sample.candidates=2"}),
              SizeIs(0));
  EXPECT_THAT(cautions({means, classifier, "data.num_classes=2"}),
              ElementsAre(HasSubstr("feature_means"), HasSubstr("feature_classifier")));
  EXPECT_THAT(cautions({classifier, "data.num_classes=2", "sample.candidates=2"}),
              ElementsAre(HasSubstr("without mechanism.stages.feature_means nothing is chosen")));
}

TEST(Load, ADeltaThatPromisesNobodyAnythingIsACaution) {
  const auto cautions = [](const std::string& delta) {
    return training_cautions(
        *load_text("", {"mechanism.target_epsilon=8", delta, "mechanism.sample_rate=0.01",
                        "mechanism.expected_batch_size=100"}));
  };
  EXPECT_THAT(cautions("mechanism.delta=9e-5"), SizeIs(0));
  EXPECT_THAT(
      cautions("mechanism.delta=1e-4"),
      ElementsAre(AllOf(HasSubstr("mechanism.delta (command line) is"), HasSubstr("some 10000"))));
  EXPECT_THAT(training_cautions(*load_text("", {"privacy.enabled=false", "mechanism.delta=0.5"})),
              SizeIs(0));
}

TEST(Mistake, UnknownKey) {
  EXPECT_THAT(mistakes_of("optimizer:\n  learing_rate: 1\n"),
              ElementsAre("c.yaml:2:3: unknown key 'learing_rate' in section 'optimizer'; did you "
                          "mean 'learning_rate'?"));
  EXPECT_THAT(mistakes_of("run:\n  noise_multiplier: 1\n"),
              ElementsAre("c.yaml:2:3: unknown key 'noise_multiplier' in section 'run'; did you "
                          "mean 'mechanism.noise_multiplier'?"));
  EXPECT_THAT(mistakes_of("run:\n  qqqqqqqqqqqqqqq: 1\n"),
              ElementsAre("c.yaml:2:3: unknown key 'qqqqqqqqqqqqqqq' in section 'run'"));
}

TEST(Mistake, UnknownSection) {
  EXPECT_THAT(mistakes_of("run:\n  seed: 1\noptimiser:\n  learning_rate: 1\n"),
              ElementsAre("c.yaml:3:1: unknown section 'optimiser'; did you mean 'optimizer'?"));
  EXPECT_THAT(mistakes_of("learning_rate: 1\n"),
              ElementsAre("c.yaml:1:1: unknown section 'learning_rate'; did you mean "
                          "'optimizer.learning_rate'?"));
  EXPECT_THAT(mistakes_of("optimizer.learning_rate: 1\n"),
              ElementsAre("c.yaml:1:1: unknown section 'optimizer.learning_rate'; write "
                          "'optimizer:' and, indented below it, 'learning_rate:'"));
}

TEST(Mistake, DuplicateKey) {
  EXPECT_THAT(mistakes_of("run:\n  seed: 1\n  dir: x\n  seed: 2\n"),
              ElementsAre("c.yaml:4:3: duplicate key 'seed' (first in line 2); remove one of the "
                          "two"));
  EXPECT_THAT(mistakes_of("run:\n  seed: 1\ndata: {}\nrun:\n  dir: x\n"),
              ElementsAre(StartsWith("c.yaml:4:1: duplicate key 'run' (first in line 1)")));
  EXPECT_THAT(mistakes_of("run: {seed: 1, \"seed\": 1}"),
              ElementsAre(StartsWith("c.yaml:1:16: duplicate key 'seed' (first in line 1)")));
}

TEST(Mistake, IllTypedValue) {
  EXPECT_THAT(mistakes_of("run:\n  seed: 3.5\n"),
              ElementsAre("c.yaml:2:9: run.seed: expected an integer, got '3.5'"));
  EXPECT_THAT(mistakes_of("run:\n  seed: \"3\"\n"),
              ElementsAre("c.yaml:2:9: run.seed: expected an integer, got the quoted text \"3\""));
  EXPECT_THAT(mistakes_of("run:\n  seed:\n"),
              ElementsAre(HasSubstr("run.seed: expected an integer, got nothing")));
  EXPECT_THAT(mistakes_of("data:\n  deduplicate: yes\n"),
              ElementsAre("c.yaml:2:16: data.deduplicate: expected true or false, got 'yes'"));
  EXPECT_THAT(mistakes_of("mechanism:\n  delta: [1]\n"),
              ElementsAre("c.yaml:2:10: mechanism.delta: expected a real number, got a list"));
  EXPECT_THAT(mistakes_of("run:\n  dir: {a: b}\n"),
              ElementsAre("c.yaml:2:8: run.dir: expected text, got a map"));
  EXPECT_THAT(mistakes_of("run:\n  dir: ~\n"),
              ElementsAre(HasSubstr("run.dir: expected text (\"\" for none), got nothing")));
  EXPECT_THAT(mistakes_of("model:\n  trainable: conv\n"),
              ElementsAre("c.yaml:2:14: model.trainable: expected a list of texts such as [a, b], "
                          "got 'conv'"));
  EXPECT_THAT(mistakes_of("model:\n  trainable:\n    - a\n    - [b]\n"),
              ElementsAre("c.yaml:4:7: model.trainable: expected text, got a list"));
}

TEST(Mistake, OutOfRange) {
  EXPECT_THAT(mistakes_of("mechanism:\n  sample_rate: 1.5\n"),
              ElementsAre("c.yaml:2:16: mechanism.sample_rate: must be greater than 0 and at most "
                          "1, got 1.5"));
  EXPECT_THAT(mistakes_of("mechanism:\n  delta: 1\n"),
              ElementsAre(HasSubstr("must be greater than 0 and less than 1, got 1")));
  EXPECT_THAT(mistakes_of("mechanism:\n  delta: .nan\n"),
              ElementsAre(HasSubstr("expected a real number, got '.nan'")));
  EXPECT_THAT(mistakes_of("mechanism:\n  delta: nan\n"), ElementsAre(HasSubstr("must be finite")));
  EXPECT_THAT(mistakes_of("data:\n  channels: 2\n"),
              ElementsAre("c.yaml:2:13: data.channels: must be one of 1, 3, got 2"));
  EXPECT_THAT(
      mistakes_of("sample:\n  sampler: dddim\n"),
      ElementsAre(
          "c.yaml:2:12: sample.sampler: must be one of ddpm, ddim, euler, heun, "
          "dpmpp_1, dpmpp_2m, dpmpp_3m, sde_dpmpp_2m, unipc, got 'dddim'; did you mean 'ddim'?"));
}

TEST(Mistake, OddValuesAreShownOnOneShortLine) {
  const auto mistakes =
      mistakes_of("sample:\n  sampler: \"dd\\nim\"\n  spacing: " + std::string(50000, 'x') + "\n");
  ASSERT_THAT(mistakes, SizeIs(2));
  EXPECT_THAT(mistakes[0], HasSubstr("got 'dd?im'"));
  EXPECT_LT(mistakes[1].size(), 300u);
}

TEST(Mistake, NotAMap) {
  EXPECT_THAT(mistakes_of("- run\n"),
              ElementsAre("c.yaml:1:1: expected sections such as 'run:', got a list"));
  EXPECT_THAT(mistakes_of("run.seed=3\n"),
              ElementsAre("c.yaml:1:1: expected sections such as 'run:', got 'run.seed=3'"));
  EXPECT_THAT(mistakes_of("run: 3\n"),
              ElementsAre("c.yaml:1:6: section 'run' holds 'key: value' lines, got '3'"));
  EXPECT_THAT(mistakes_of("run:\n- seed\n"), ElementsAre(HasSubstr("got a list")));
  EXPECT_THAT(mistakes_of("[run]: 3\n"), ElementsAre("c.yaml:1:1: a key must be a name"));
  EXPECT_THAT(mistakes_of("~: 3\n"), ElementsAre("c.yaml:1:1: a key must be a name"));
}

TEST(Mistake, SyntaxWithPosition) {
  EXPECT_THAT(mistakes_of("run:\n  seed: 1\n  dir: [a\n"),
              ElementsAre(StartsWith("c.yaml:4:1: not valid YAML here: ")));
  EXPECT_THAT(mistakes_of("run:\n\tseed: 1\n"),
              ElementsAre(AllOf(StartsWith("c.yaml:2:6: not valid YAML here: "),
                                HasSubstr("indent with spaces, not tabs"))));
  EXPECT_THAT(mistakes_of("run:\n  dir: \"\\q\"\n"),
              ElementsAre(StartsWith("c.yaml:2:11: not valid YAML here: unknown escape")));
  EXPECT_THAT(mistakes_of("run:\n  seed: 1\n---\nrun:\n  seed: 2\n"),
              ElementsAre(HasSubstr("a second document")));
}

TEST(Mistake, NotPlainText) {
  EXPECT_THAT(mistakes_of(std::string("run:\n  di\0r: x\n", 15)),
              ElementsAre(StartsWith("c.yaml:2:5: control character 0x00")));
  // yaml-cpp takes 0x04 for the end of the file and would ignore the rest silently.
  EXPECT_THAT(mistakes_of("run:\n  seed: 1\n\x04  seed: 2\n"),
              ElementsAre(StartsWith("c.yaml:3:1: control character 0x04")));
  EXPECT_THAT(mistakes_of("run:\n  dir: caf\xE9\n"), ElementsAre("c.yaml:2:11: not valid UTF-8"));
  EXPECT_THAT(mistakes_of("# \xC3\xA9\xED\xA0\x80\n"), ElementsAre("c.yaml:1:4: not valid UTF-8"));
  EXPECT_THAT(mistakes_of(std::string("\xFF\xFEr\0u\0n\0", 8)), SizeIs(1));
  EXPECT_EQ(load_text("run:\n  dir: café ε 图 😀\n")->run.dir(), "café ε 图 😀");
}

TEST(Mistake, AnchorsAliasesAndTags) {
  const std::string hint = "put quotes around a text that begins with & or *";
  EXPECT_THAT(mistakes_of("run: &a\n  seed: 1\n"),
              ElementsAre(AllOf(StartsWith("c.yaml:1:"), HasSubstr(hint))));
  EXPECT_THAT(mistakes_of("model:\n  trainable: [*attn]\n"),
              ElementsAre(AllOf(StartsWith("c.yaml:2:"), HasSubstr(hint))));
  EXPECT_THAT(mistakes_of("model:\n  trainable: [*]\n"),
              ElementsAre(AllOf(StartsWith("c.yaml:2:"), HasSubstr(hint))));
  EXPECT_THAT(mistakes_of("model:\n  trainable:\n  - *attn*\n"),
              ElementsAre(AllOf(StartsWith("c.yaml:3:"), HasSubstr(hint))));
  EXPECT_THAT(mistakes_of("run:\n  seed: !!int 3\n"),
              ElementsAre(HasSubstr("tags are not supported")));
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c <= 'i'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 9; ++i) bomb += std::string(i ? "," : "") + "*" + char(c - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(mistakes_of(bomb), ElementsAre(AllOf(StartsWith("c.yaml:1:"), HasSubstr(hint))));
}

TEST(Mistake, DeepNesting) {
  for (const std::string open : {"[", "{a: "})
    for (const int depth : {21, 1000, 50000}) {
      std::string text = "run: ";
      for (int i = 0; i < depth; ++i) text += open;
      EXPECT_THAT(mistakes_of(text), ElementsAre(HasSubstr("nested deeper than 20 levels")));
    }
  EXPECT_THAT(mistakes_of("run:\n  seed: [[[[[[1]]]]]]\n"),
              ElementsAre(HasSubstr("expected an integer, got a list")));
}

TEST(Mistake, HugeFiles) {
  EXPECT_THAT(mistakes_of(std::string(300 * 1024, '#')), ElementsAre(HasSubstr("too large")));
  std::string many;
  for (int i = 0; i < 10000; ++i) many += std::to_string(i) + ": 1\n";
  const auto mistakes = mistakes_of(many);
  EXPECT_THAT(mistakes, SizeIs(101));
  EXPECT_EQ(mistakes.back(), "c.yaml: too many mistakes, the rest is not shown");
  const auto long_key = mistakes_of("run:\n  " + std::string(900, 'x') + ": 1\n");
  ASSERT_THAT(long_key, SizeIs(1));
  EXPECT_LT(long_key[0].size(), 300u);
}

TEST(Mistake, OverridesNameThemselves) {
  EXPECT_THAT(
      mistakes_of("", {"nothing.b=c", "run.sed=3", "run.seed=x", "seed=3", "lerning_rate=1", "run",
                       "run.seed", "optimiser.learning_rate=1", "=", "run.dir=\x01"}),
      ElementsAre("command line: 'nothing.b=c': unknown section 'nothing'",
                  "command line: 'run.sed=3': unknown key 'sed' in section 'run'; did you mean "
                  "'seed'?",
                  "command line: 'run.seed=x': expected an integer, got 'x'",
                  "command line: 'seed=3': expected section.setting=value; did you mean "
                  "'run.seed'?",
                  StartsWith("command line: 'lerning_rate=1': expected section.setting=value"),
                  "command line: 'run': expected section.setting=value",
                  "command line: 'run.seed': expected section.setting=value",
                  "command line: 'optimiser.learning_rate=1': unknown section 'optimiser'; did you "
                  "mean 'optimizer.learning_rate'?",
                  StartsWith("command line: '=': expected section.setting=value"),
                  StartsWith("command line: 'run.dir=?': control character 0x01")));
}

TEST(Mistake, ARefusedOverrideLeavesTheValue) {
  Config config;
  EXPECT_FALSE(config.try_override("run.seed=4"));
  EXPECT_EQ(config.run.seed(), 4);
  EXPECT_TRUE(config.try_override("run.seed=-4"));
  EXPECT_EQ(config.run.seed(), 4);
}

TEST(Mistake, AllAreReportedAtOnceInOrder) {
  EXPECT_THAT(mistakes_of("optimizer:\n  learing_rate: 1\n  beta1: 1\nrun:\n  seed: a\n  seed: -1\n"
                          "mechanism:\n  noise_multiplier: 1\n  target_epsilon: 2\nrum: 1\n",
                          {"run.dir=", "x=y"}),
              ElementsAre(StartsWith("c.yaml:2:3: unknown key"),
                          StartsWith("c.yaml:3:10: optimizer.beta1: must be at least 0 and less"),
                          StartsWith("c.yaml:5:9: run.seed: expected an integer"),
                          StartsWith("c.yaml:6:3: duplicate key 'seed'"),
                          StartsWith("c.yaml:6:9: run.seed: must be at least 0"),
                          StartsWith("c.yaml:10:1: unknown section 'rum'"),
                          "command line: 'run.dir=': must not be empty",
                          StartsWith("command line: 'x=y': expected"),
                          StartsWith("mechanism.noise_multiplier (c.yaml:8) and "
                                     "mechanism.target_epsilon (c.yaml:9) are both set")));
}

TEST(InnerSection, IsReadFromYamlAndOverrides) {
  const auto config = load_text(
      "mechanism:\n  steps: 5\n  stages:\n    label_histogram:\n      noise_multiplier: 50\n"
      "    central_images: {noise_multiplier: 5, releases: 3}\n  delta: 1e-3\n"
      "data: {num_classes: 2}\n",
      {"mechanism.stages.central_images.releases=4", "mechanism.declared=[\"gaussian:1:9\"]"});
  EXPECT_EQ(config->label_histogram.noise_multiplier(), 50.0);
  EXPECT_EQ(config->central_images.noise_multiplier(), 5.0);
  EXPECT_EQ(config->central_images.releases(), 4);
  EXPECT_EQ(config->mechanism.steps(), 5);
  EXPECT_EQ(config->mechanism.delta(), 1e-3);
  EXPECT_THAT(config->mechanism.declared(), ElementsAre("gaussian:1:9"));
  EXPECT_THAT(config->label_histogram.noise_multiplier.provenance(), HasSubstr("c.yaml:5"));
  EXPECT_EQ(config->label_histogram.noise_multiplier.key(),
            "mechanism.stages.label_histogram.noise_multiplier");
  EXPECT_FALSE(load_text("mechanism: {stages: {label_histogram: }}")->label_histogram.on());
}

TEST(InnerSection, MistakesNameTheirPlace) {
  EXPECT_THAT(mistakes_of("mechanism:\n  stages:\n    label_histgram: {share: 0.1}\n"),
              ElementsAre("c.yaml:3:5: unknown key 'label_histgram' in section 'mechanism.stages'; "
                          "did you mean 'label_histogram'?"));
  EXPECT_THAT(mistakes_of("mechanism: {stagse: {}}"),
              ElementsAre("c.yaml:1:13: unknown key 'stagse' in section 'mechanism'; did you mean "
                          "'stages'?"));
  EXPECT_THAT(mistakes_of("mechanism:\n  stages:\n    central_images:\n      realeases: 3\n"),
              ElementsAre(AllOf(StartsWith("c.yaml:4:7: unknown key 'realeases'"),
                                HasSubstr("did you mean 'releases'?"))));
  EXPECT_THAT(mistakes_of("", {"mechanism.stages.central_images=null"}),
              ElementsAre(AllOf(HasSubstr("'central_images' is a section, which takes no value"),
                                HasSubstr("'mechanism.stages.central_images.noise_multiplier'"))));
  EXPECT_THAT(mistakes_of("", {"mechanism.stages=3"}),
              ElementsAre(AllOf(HasSubstr("'stages' is a section, which takes no value"),
                                HasSubstr("'mechanism.stages."))));
  EXPECT_THAT(mistakes_of("mechanism: {stages: 3}"),
              ElementsAre("c.yaml:1:21: section 'mechanism.stages' holds 'key: value' lines, got "
                          "'3'"));
  EXPECT_THAT(mistakes_of("mechanism.stages.label_histogram: {share: 0.1}"), SizeIs(1));
  EXPECT_THAT(mistakes_of("mechanism: {stages.label_histogram: {share: 0.1}}"), SizeIs(1));
  EXPECT_THAT(
      mistakes_of("mechanism:\n  stages:\n    label_histogram: {share: 2}\n"),
      ElementsAre(HasSubstr("mechanism.stages.label_histogram.share: must be greater than 0 "
                            "and less than 1, got 2")));
  EXPECT_THAT(mistakes_of("", {"mechanism.stages.label_histogram.shar=1", "mechanism.stages=3",
                               "mechanism.stages.label_histogram=4"}),
              SizeIs(3));
}

/// Whatever the bytes, the answer is a configuration or a UsageError, never another exception.
void expect_clean_answer(const std::string& text) {
  try {
    Config config;
    config.read_yaml(text, "c.yaml");
  } catch (const std::exception& error) {
    RC_FAIL(std::string("read_yaml threw: ") + error.what());
  }
}

TEST(Robustness, AnyYamlLikeText) {
  EXPECT_TRUE(rc::check("pieces of YAML in any order", [] {
    static const std::vector<std::string> kPieces{
        "run",  ":",  " ",  "\n",   "  ", "- ", "[",  "]",   "{",  "}",   ",",   "?",   "! ",
        "!",    "&a", "*a", "'",    "\"", "|",  ">",  "%",   "#",  "---", "...", "@",   "`",
        "seed", "1",  "~",  "null", "\t", "\r", "<<", "!!a", "!<", "é",   "\\",  "?\n", "data"};
    const auto picks = *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(kPieces));
    std::string text;
    for (const std::string& piece : picks) text += piece;
    expect_clean_answer(text);
  }));
  EXPECT_TRUE(rc::check("any bytes", [](const std::string& text) { expect_clean_answer(text); }));
}

TEST(Robustness, DamagedDocumentedFile) {
  const std::string whole = documented_yaml();
  EXPECT_TRUE(rc::check("bytes changed, cut or doubled", [&] {
    std::string text = whole;
    const int changes = *rc::gen::inRange(1, 6);
    for (int i = 0; i < changes; ++i) {
      const auto at = *rc::gen::inRange<std::size_t>(0, text.size());
      const auto length = *rc::gen::inRange<std::size_t>(0, 40);
      switch (*rc::gen::inRange(0, 3)) {
        case 0: text[at] = static_cast<char>(*rc::gen::inRange(0, 256)); break;
        case 1: text.erase(at, length); break;
        default: text.insert(at, text.substr(at, length));
      }
    }
    expect_clean_answer(text);
  }));
}

}  // namespace
}  // namespace sfumato
