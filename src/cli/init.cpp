#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/config/config.h"
#include "sfumato/config/starter.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/data/source_look.h"

namespace sfumato::cli {
namespace {

namespace fs = std::filesystem;

struct InitArguments {
  std::string source, out, users, pretrained;
  std::optional<std::int64_t> image_size, channels, records, records_per_user;
  std::optional<std::vector<std::string>> class_names;
  bool no_classes = false, one_image = false;
  double target_epsilon = 10;
};

/// A public fact that has to be said: by a flag, or at the terminal.
struct Question {
  std::string text;      ///< "Side of the square images in pixels"
  std::string proposal;  ///< taken by an empty line
  std::string flag;      ///< "--image-size 32"
  bool answered = false;
  std::function<void(const std::string& answer)> take = {};
  std::function<bool()> is_open = [] { return true; };  ///< by what was answered before
};

std::int64_t whole(const std::string& answer, std::int64_t least) {
  const auto number = parse_int64(answer);
  if (!number || *number < least)
    throw UsageError(fmt::format("'{}' is no whole number of at least {}", answer, least));
  return *number;
}

std::vector<std::string> names_in(const std::string& text) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin <= text.size() && !text.empty();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::string name = text.substr(begin, end - begin);
    while (name.starts_with(' ')) name.erase(0, 1);
    if (!name.empty()) names.push_back(name);
    begin = end + 1;
  }
  return names;
}

Question about_classes(const InitArguments& given, const SourceLook& look, StarterFacts& facts) {
  Question q{"Classes that the public knows there are, with images here or without; '-' for none",
             fmt::format("{}", fmt::join(look.class_names, ",")),
             "",
             false,
             {}};
  if (q.proposal.empty() && look.numbered_classes > 1)
    q.proposal = std::to_string(look.numbered_classes);
  if (q.proposal.empty()) q.proposal = "-";
  q.flag = q.proposal == "-" ? "--no-classes" : "--class-names " + q.proposal;
  q.answered = given.class_names || given.no_classes;
  q.take = [&facts](const std::string& answer) {
    if (answer == "-") return;
    const auto number = parse_int64(answer);
    if (number && *number > 0)
      facts.num_classes = *number;
    else
      facts.class_names = names_in(answer);
    if (!number) facts.num_classes = std::ssize(facts.class_names);
  };
  if (given.class_names) q.take(fmt::format("{}", fmt::join(*given.class_names, ",")));
  return q;
}

/// What bounds keep of whose images: for the eyes of the holder, who chooses one.
void show_bounds(const std::string& source, const std::string& users) {
  std::cerr << fmt::format("records_per_user: {}. For your eyes alone.\n",
                           kept_by_bound_text(look_at_users(source, users)));
}

Question about_unit(const InitArguments& given, StarterFacts& facts) {
  Question q{
      "Can somebody have several images? The CSV with columns 'file,user' that says whose each "
      "is; '-' if every image counts by itself",
      "-",
      "--one-image, or --users FILE --records-per-user N",
      false,
      {}};
  q.answered = given.one_image || !given.users.empty();
  q.take = [&facts](const std::string& answer) {
    if (answer == "-") return;
    if (!fs::is_regular_file(answer))
      throw UsageError(fmt::format("there is no file '{}'", answer));
    facts.users = fs::absolute(answer).lexically_normal().string();
    facts.records_per_user = 4;
    show_bounds(facts.source, facts.users);
  };
  return q;
}

/// After about_unit(): only where there are users.
Question about_bound(const InitArguments& given, StarterFacts& facts) {
  Question q{"Images kept of each person; more images, and more noise for the same epsilon",
             "4",
             "",
             given.one_image || !given.users.empty(),
             {}};
  q.is_open = [&facts] { return !facts.users.empty(); };
  q.take = [&facts](const std::string& answer) { facts.records_per_user = whole(answer, 1); };
  return q;
}

std::vector<Question> questions(const InitArguments& given, const SourceLook& look,
                                StarterFacts& facts) {
  const std::string size = std::to_string(proposed_size(look.smallest_side)),
                    channels = std::to_string(look.channels),
                    records = std::to_string(rounded_count(look.images));
  return {
      {"Side of the square images in pixels", size, "--image-size " + size,
       given.image_size.has_value(),
       [&facts](const std::string& answer) { facts.image_size = whole(answer, 4); }},
      {"1 for grey, 3 for colour", channels, "--channels " + channels, given.channels.has_value(),
       [&facts](const std::string& answer) {
         facts.channels = whole(answer, 1);
         if (facts.channels != 1 && facts.channels != 3) throw UsageError("channels are 1 or 3");
       }},
      about_classes(given, look, facts),
      {"About how many images there are, as you would tell anyone (rounded)", records,
       "--records " + records, given.records.has_value(),
       [&facts](const std::string& answer) { facts.records = whole(answer, 1); }},
      about_unit(given, facts),
      about_bound(given, facts),
  };
}

/// One after the other at the terminal; an answer that is wrong is asked for again.
void ask(std::vector<Question>& open) {
  for (Question& question : open) {
    if (question.answered || !question.is_open()) continue;
    while (!question.answered) {
      std::cerr << question.text << " [" << question.proposal << "]: " << std::flush;
      std::string answer;
      if (!std::getline(std::cin, answer)) throw UsageError("init: no answer; nothing was written");
      try {
        question.take(answer.empty() ? question.proposal : answer);
        question.answered = true;
      } catch (const UsageError& error) {
        std::cerr << "  " << error.what() << "\n";
      }
    }
  }
}

void refuse(const std::vector<Question>& open) {
  std::string list;
  for (const Question& question : open)
    if (!question.answered && question.is_open())
      list += fmt::format("\n  {:<46} {}", question.flag, question.text);
  if (list.empty()) return;
  throw UsageError(
      "init: what a configuration says of the images becomes public, so somebody must say that it "
      "may, and there is no terminal to ask at. Confirm each by its option (proposed from a look "
      "at "
      "the images):" +
      list);
}

StarterFacts facts_of(const InitArguments& given, const fs::path& out) {
  StarterFacts facts;
  facts.name = out.stem().string();
  // As found from where the configuration lies, and from anywhere.
  facts.source = fs::absolute(given.source).lexically_normal().string();
  facts.image_size = given.image_size.value_or(0);
  facts.channels = given.channels.value_or(0);
  facts.records = given.records.value_or(0);
  if (!given.users.empty()) facts.users = fs::absolute(given.users).lexically_normal().string();
  if (!given.users.empty()) facts.records_per_user = given.records_per_user.value_or(4);
  facts.target_epsilon = given.target_epsilon;
  facts.init = given.pretrained;
  return facts;
}

void run_init(const InitArguments& given) {
  const fs::path out = given.out;
  const fs::path network = out.parent_path() / (out.stem().string() + "_network.json");
  for (const fs::path& file : {out, network})
    if (fs::exists(file))
      throw UsageError(
          fmt::format("'{}' is there already; name another with --out", file.string()));
  if (!given.users.empty() && !fs::is_regular_file(given.users))
    throw UsageError(fmt::format("--users: there is no file '{}'", given.users));
  const SourceLook look = look_at_source(given.source);
  StarterFacts facts = facts_of(given, out);
  if (!given.users.empty()) show_bounds(given.source, given.users);
  std::vector<Question> open = questions(given, look, facts);
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (!terminal) refuse(open);
  std::cerr << fmt::format(
      "'{}' ({}): {} images, the smallest side of the first {} pixels{}. For your eyes alone; what "
      "you confirm becomes public.\n",
      given.source, look.format, look.images, look.smallest_side,
      look.unread_files > 0 ? fmt::format(", {} other files", look.unread_files) : "");
  ask(open);
  facts.merge_folders = facts.num_classes == 0 && facts.class_names.empty() &&
                        (look.class_names.size() > 1 || look.numbered_classes > 1);
  if (facts.init.empty()) facts.network = network.filename().string();
  const std::string text = starter_configuration(facts);
  if (facts.init.empty()) write_file_atomic(network, starter_network(facts));
  write_file_atomic(out, text);
  const std::vector<std::string> nothing;
  validate_for_training(*load_config(out, nothing));
  fmt::print("{} is written. Next:\n  sfumato plan --config {}\n  sfumato prepare --config {}\n",
             out.string(), out.string(), out.string());
}

}  // namespace

void add_init(CLI::App& app) {
  auto arguments = std::make_shared<InitArguments>();
  CLI::App* sub = add_subcommand(app, "init");
  sub->add_option("source", arguments->source, "folder, archive or file of private images")
      ->required()
      ->type_name("SOURCE");
  arguments->out = "sfumato.yaml";
  sub->add_option("--out", arguments->out, "configuration to write")
      ->type_name("FILE")
      ->capture_default_str();
  sub->add_option("--image-size", arguments->image_size, "side of the square images, pixels")
      ->check(CLI::Range(std::int64_t{4}, std::int64_t{1024}));
  sub->add_option("--channels", arguments->channels, "1 grey, 3 colour")
      ->check(CLI::IsMember({1, 3}));
  auto* names = sub->add_option("--class-names", arguments->class_names,
                                "classes that the public knows: a,b,c, or their number")
                    ->delimiter(',');
  sub->add_flag("--no-classes", arguments->no_classes, "the images have no classes")
      ->excludes(names);
  sub->add_option("--records", arguments->records,
                  "about how many images there are: PUBLIC, rounded")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000'000}));
  auto* users = sub->add_option("--users", arguments->users,
                                "CSV with columns 'file,user': the unit of privacy is a person");
  sub->add_option("--records-per-user", arguments->records_per_user, "images kept of each person")
      ->needs(users)
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{100'000}));
  sub->add_flag("--one-image", arguments->one_image, "the unit of privacy is one image")
      ->excludes(users);
  sub->add_option("--target-epsilon", arguments->target_epsilon, "what the run may spend")
      ->check(CLI::Range(1e-6, 1e6))
      ->capture_default_str();
  sub->add_option("--pretrained", arguments->pretrained,
                  "folder with public weights; none: a small network from scratch");
  sub->callback([arguments] { run_init(*arguments); });
}

}  // namespace sfumato::cli
