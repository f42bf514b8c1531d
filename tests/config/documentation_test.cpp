// The texts made from the declarations: resolved files, configs/base.yaml, --help.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <cstdlib>
#include <set>
#include <sstream>

#include "load_helpers.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/config/settings_help.h"
#include "sfumato/core/file.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using test::load_text;
using ::testing::HasSubstr;

std::filesystem::path base_file() { return test::source_folder() / "configs" / "base.yaml"; }

/// True if both hold the same value; compares the values themselves, not their text.
template <typename T>
bool same_as(const SettingBase& a, const SettingBase& b, bool& matched_type) {
  const auto* left = dynamic_cast<const Setting<T>*>(&a);
  const auto* right = dynamic_cast<const Setting<T>*>(&b);
  if (left == nullptr || right == nullptr) return false;
  matched_type = true;
  return (*left)() == (*right)();
}

bool same_value(const SettingBase& a, const SettingBase& b) {
  bool known = false;
  const bool same =
      same_as<bool>(a, b, known) || same_as<int64_t>(a, b, known) || same_as<double>(a, b, known) ||
      same_as<std::optional<double>>(a, b, known) || same_as<std::string>(a, b, known) ||
      same_as<std::vector<int64_t>>(a, b, known) || same_as<std::vector<std::string>>(a, b, known);
  EXPECT_TRUE(known) << a.key() << " is of a type this test does not know";
  return same;
}

/// A text as an override can hold it: printable UTF-8 of any script and YAML's special characters.
std::string any_text() {
  static const std::vector<std::string> kPieces{
      "a", "Z",  "0", " ",  "*", "&", "!",    "#",    ":",   "- ", "\"", "'", "[", "]", "{",
      ",", "\\", "é", "图", "%", "~", "null", "true", "1e3", "\t", "\n", "=", "/", "."};
  std::string text;
  for (const auto& piece :
       *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(kPieces)))
    text += piece;
  return text;
}

/// A random value inside the range, as the right-hand side of an override.
std::string any_value_of(const SettingBase& setting) {
  const Range& range = setting.range();
  const std::string type = setting.type_name();
  if (!range.choices.empty()) return *rc::gen::elementOf(range.choices);
  if (type == "true or false") return *rc::gen::arbitrary<bool>() ? "true" : "false";
  if (type == "text" || type == "list of texts") {
    std::string text = any_text();
    return text.find_first_not_of(" \"'") == std::string::npos ? "x" : text;
  }
  const double low = range.low.value_or(-1e6);
  const double high = range.high.value_or(1e6);
  if (type == "integer" || type == "list of integers")
    return std::to_string(
        *rc::gen::inRange(static_cast<int64_t>(low), static_cast<int64_t>(high) + 1));
  if (type == "real number or null" && *rc::gen::inRange(0, 4) == 0) return "null";
  const double fraction =
      static_cast<double>(*rc::gen::inRange<int64_t>(1, int64_t{1} << 53)) * 0x1p-53;
  std::ostringstream out;
  out.precision(17);  // enough digits for any double
  out << low + (high - low) * fraction;
  return out.str();
}

TEST(ResolvedYaml, ReadsBackToTheSameValues) {
  EXPECT_TRUE(rc::check("random overrides", [] {
    Config config;
    for (const std::string& key :
         *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(config.keys()))) {
      const std::string text = key + "=" + any_value_of(*config.find(key));
      // An empty list element is the one thing that random text can get wrong.
      if (const auto message = config.try_override(text))
        RC_ASSERT(message->find("must not be empty") != std::string::npos);
    }
    Config copy;
    const std::string yaml = config.resolved_yaml();
    const auto mistakes = copy.read_yaml(yaml, "resolved");
    if (!mistakes.empty()) RC_FAIL(mistakes.front());
    for (const std::string& key : config.keys())
      if (!same_value(*config.find(key), *copy.find(key)))
        RC_FAIL(key + ": " + config.find(key)->value_yaml() + " became " +
                copy.find(key)->value_yaml());
    // Written again, the values are the same text; only the provenance differs.
    for (const std::string& key : config.keys())
      RC_ASSERT(config.find(key)->value_yaml() == copy.find(key)->value_yaml());
  }));
}

TEST(ResolvedYaml, SaysWhereEachValueComesFrom) {
  const test::TempFolder folder;
  const auto path = folder / "x.yaml";
  std::ofstream(path) << "run:\n  seed: 5\n";
  const auto config = load_config(path, std::vector<std::string>{"optimizer.learning_rate=0.25"});
  const std::string yaml = config->resolved_yaml();
  EXPECT_THAT(yaml, HasSubstr("\n  seed: 5  # from " + path.string() + ":2\n"));
  EXPECT_THAT(yaml, HasSubstr("\n  learning_rate: 0.25  # from command line\n"));
  EXPECT_THAT(yaml, HasSubstr("\n  delta: 1e-05  # from default\n"));
  EXPECT_THAT(yaml, HasSubstr("\n  noise_multiplier: null  # from default\n"));
}

TEST(ResolvedYaml, FileNameCannotBreakTheComment) {
  const test::TempFolder folder;
  const auto path = folder / "a\nrun: {seed: 9}\n\xFF.yaml";
  std::ofstream(path) << "run:\n  seed: 5\n";
  const auto config = load_config(path, {});
  EXPECT_EQ(load_text(config->resolved_yaml())->run.seed(), 5);
}

TEST(BaseYaml, FileIsTheGeneratorsOutput) {
  const char* update = std::getenv("SFUMATO_UPDATE");
  if (update != nullptr && std::string(update) == "1")
    write_file_atomic(base_file(), documented_yaml());
  EXPECT_EQ(read_file(base_file()), documented_yaml())
      << "configs/base.yaml is not what the declarations say; run this test with SFUMATO_UPDATE=1 "
         "and look at the difference";
}

TEST(BaseYaml, LoadsToTheDefaults) {
  const auto config = load_config(base_file(), {});
  const Config defaults;
  for (const std::string& key : defaults.keys()) {
    EXPECT_TRUE(same_value(*config->find(key), *defaults.find(key))) << key;
    EXPECT_FALSE(config->find(key)->is_default()) << key << " is missing in configs/base.yaml";
  }
}

void add_keys(const YAML::Node& map, const std::string& prefix, std::vector<std::string>& keys) {
  for (const auto& entry : map) {
    const std::string key = prefix + entry.first.as<std::string>();
    if (entry.second.IsMap())
      add_keys(entry.second, key + ".", keys);
    else
      keys.push_back(key);
  }
}

TEST(BaseYaml, AnotherReaderSeesTheSameKeys) {
  std::vector<std::string> keys;
  add_keys(YAML::Load(documented_yaml()), "", keys);
  EXPECT_EQ(keys, Config{}.keys());
}

TEST(BaseYaml, DocumentsHelpUnitRangeAndDefault) {
  EXPECT_THAT(
      documented_yaml(),
      HasSubstr("  # Side of the square images: they are centre-cropped and resized to it.\n"
                "  # (integer, pixels; between 4 and 1024; default 32)\n"
                "  image_size: 32\n"));
  Config config;
  config.data.image_size.set(64);
  EXPECT_THAT(base_yaml(config), HasSubstr("default 32)\n  image_size: 64\n"));
}

TEST(BaseYaml, LinesAreShort) {
  std::istringstream lines(documented_yaml());
  for (std::string line; std::getline(lines, line);) {
    const auto continuation = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
    EXPECT_LE(static_cast<std::ptrdiff_t>(line.size()) -
                  std::count_if(line.begin(), line.end(), continuation),
              100)
        << line;
  }
}

TEST(Declarations, AreCompleteAndConsistent) {
  const Config config;
  std::set<std::string> seen;
  for (const Section* section : config.sections()) {
    EXPECT_TRUE(section->section_help().ends_with('.')) << section->section_name();
    EXPECT_FALSE(section->settings().empty());
    for (SettingBase* setting : section->settings()) {
      EXPECT_TRUE(seen.insert(setting->key()).second) << setting->key() << " is declared twice";
      EXPECT_TRUE(setting->help().ends_with('.')) << setting->key();
      EXPECT_EQ(config.find(setting->key()), setting);
      // The default must lie in the setting's own range.
      Config fresh;
      const auto message =
          fresh.try_override(setting->key() + "=" +
                             (setting->type_name() == "text" && setting->default_yaml() == "\"\""
                                  ? ""
                                  : setting->default_yaml()));
      EXPECT_FALSE(message) << *message;
    }
  }
}

TEST(PublicSettings, AreThoseOfTheFamily) {
  const auto keys_with = [](const char* family) {
    const auto config =
        load_config(std::nullopt, std::vector<std::string>{std::string("model.family=") + family});
    const std::string yaml = public_settings_yaml(*config);
    Config again;  // as verification reads a page
    EXPECT_TRUE(again.read_yaml(yaml, "a page").empty());
    EXPECT_EQ(public_settings_yaml(again), yaml);
    std::vector<std::string> keys;
    add_keys(YAML::Load(yaml), "", keys);
    return std::set<std::string>(keys.begin(), keys.end());
  };
  const auto of_gan = keys_with("gan"), of_diffusion = keys_with("diffusion");
  for (const char* key : {"gan.fakes", "sample.batch", "sample.seed", "sample.format",
                          "mechanism.steps", "model.family"})
    EXPECT_TRUE(of_gan.contains(key)) << key;
  for (const std::string& key : of_gan) {
    EXPECT_FALSE(key.starts_with("diffusion.")) << key;
    const bool shown = key == "sample.batch" || key == "sample.candidates" ||
                       key == "sample.seed" || key == "sample.format";
    EXPECT_TRUE(shown || !key.starts_with("sample.")) << key;
  }
  for (const char* key : {"diffusion.draws", "sample.steps", "sample.guidance", "sample.batch"})
    EXPECT_TRUE(of_diffusion.contains(key)) << key;
  for (const std::string& key : of_diffusion) EXPECT_FALSE(key.starts_with("gan.")) << key;
}

TEST(Help, NamesEverySetting) {
  const std::string help = settings_help();
  for (const std::string& key : Config{}.keys()) EXPECT_THAT(help, HasSubstr("  " + key + "="));
  EXPECT_THAT(help, HasSubstr("(one of ddpm, ddim, "));
  EXPECT_THAT(help, HasSubstr("learns from it (model.family: gan)\n")) << "not cut in brackets";
}

TEST(Documentation, HelpOfASubcommandIsOfTheSettingsThatItReads) {
  const std::string sample = settings_help_of(sections_read_by("sample"));
  EXPECT_THAT(sample, AllOf(HasSubstr("  sample.guidance="), HasSubstr("  performance.threads="),
                            Not(HasSubstr("  optimizer.learning_rate=")),
                            HasSubstr("(--help-all): run, data, ")));
  const std::string train = settings_help_of(sections_read_by("train"));
  EXPECT_THAT(train, AllOf(HasSubstr("  mechanism.stages.label_histogram.share="),
                           Not(HasSubstr("  sample.guidance="))));
  EXPECT_EQ(settings_help_of(sections_read_by("bench")), settings_help());
  // Every section that is named there is one.
  const Config config;
  for (const char* subcommand : {"prepare", "train", "sample"})
    for (const std::string_view name : sections_read_by(subcommand))
      EXPECT_NE(config.find_section(name), nullptr) << name;
}

}  // namespace
}  // namespace sfumato
