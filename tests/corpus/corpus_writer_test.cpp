#include "sfumato/corpus/corpus_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/json_file.h"
#include "sfumato/io/tar.h"
#include "sfumato/report/privacy_card.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

CorpusSpec spec_in(const fs::path& folder, CorpusFormat format = CorpusFormat::kFolder) {
  CorpusSpec spec;
  spec.folder = folder;
  spec.format = format;
  spec.images_per_class = {3, 0, 2};
  spec.shape = {.channels = 3, .height = 4, .width = 6};
  spec.settings = {{"seed", 7}, {"scheduler", {{"steps", 50}}}};
  return spec;
}

/// A picture that tells label and index.
Image picture(const CorpusSpec& spec, const ImageId& id) {
  Image image{.height = spec.shape.height,
              .width = spec.shape.width,
              .channels = spec.shape.channels,
              .pixels = {}};
  for (int64_t i = 0; i < spec.shape.elements(); ++i)
    image.pixels.push_back(static_cast<uint8_t>(i + 20 * id.label + 3 * id.index));
  return image;
}

void add_some(CorpusWriter& writer, int64_t most) {
  std::vector<Image> images;
  for (const ImageId& id : writer.next(most)) images.push_back(picture(writer.spec(), id));
  writer.add(images);
}

nlohmann::ordered_json card() {
  PrivacyCard card;
  card.status = PrivacyCard::Status::kPrivate;
  card.epsilon = 4.25;
  card.delta = 1e-6;
  card.unit = "one image";
  card.adjacency = "zero_out";
  return to_json(card);
}

void make_whole(CorpusWriter& writer) {
  while (writer.done() < writer.total()) add_some(writer, 2);
  writer.finish(card(), {{"run", "first"}});
}

/// Path and hash of every file, without what holds a time.
std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != "lineage.json")
      files[fs::relative(entry.path(), folder).string()] = sha256_hex(read_file(entry.path()));
  return files;
}

TEST(CorpusWriter, OrderTakesOneOfEachClassInTurn) {
  const std::vector<int64_t> counts{2, 0, 1, 3};
  const std::vector<ImageId> order = corpus_order(counts);
  EXPECT_THAT(order, ElementsAre(ImageId{0, 0}, ImageId{2, 0}, ImageId{3, 0}, ImageId{0, 1},
                                 ImageId{3, 1}, ImageId{3, 2}));
}

TEST(CorpusWriter, FolderHoldsWhatTheSurfaceSays) {
  const test::TempFolder temp;
  const fs::path folder = temp / "corpus";
  CorpusWriter writer(spec_in(folder));
  make_whole(writer);
  std::vector<std::string> names;
  for (const auto& [name, hash] : contents(folder)) names.push_back(name);
  EXPECT_THAT(
      names,
      ElementsAre("README.md", "__preview__/contact_sheet.png", "images/0/000000.png",
                  "images/0/000001.png", "images/0/000002.png", "images/2/000000.png",
                  "images/2/000001.png", "metadata.csv", "privacy_card.json", "report.html"));
  EXPECT_EQ(read_file(folder / "metadata.csv"),
            "file_name,label\nimages/0/000000.png,0\nimages/0/000001.png,0\n"
            "images/0/000002.png,0\nimages/2/000000.png,2\nimages/2/000001.png,2\n");
  for (const ImageId& id : corpus_order(writer.spec().images_per_class)) {
    const fs::path path = folder / "images" / std::to_string(id.label) /
                          ("00000" + std::to_string(id.index) + ".png");
    EXPECT_EQ(decode_image(read_file(path), "p").pixels, picture(writer.spec(), id).pixels);
  }
  EXPECT_EQ(read_json(folder / "privacy_card.json"), nlohmann::json::parse(card().dump()));
  const auto lineage = read_json(folder / "lineage.json");
  EXPECT_EQ(lineage["settings"]["seed"], 7);
  EXPECT_EQ(lineage["origin"]["run"], "first");
  EXPECT_EQ(lineage["privacy_card_sha256"], sha256_hex(read_file(folder / "privacy_card.json")));
  // One row for each of the two classes, three columns, 4 x 6 enlarged tenfold, gaps of two.
  const Image sheet = decode_image(read_file(folder / kContactSheet), "sheet");
  EXPECT_EQ(sheet.height, 2 + 2 * (4 * 10 + 2));
  EXPECT_EQ(sheet.width, 2 + 3 * (6 * 10 + 2));
}

TEST(CorpusWriter, ReadmeCarriesHeaderCardAndBanner) {
  const test::TempFolder temp;
  CorpusWriter writer(spec_in(temp / "c"));
  make_whole(writer);
  const std::string readme = read_file(temp / "c/README.md");
  EXPECT_TRUE(readme.starts_with("---\npretty_name: \"c\"\n"));
  EXPECT_THAT(readme, HasSubstr("    - images/**\n    - metadata.csv\n"));
  EXPECT_THAT(readme, HasSubstr("ε = 4.25 and δ = 1e-06"));
  EXPECT_THAT(readme, Not(HasSubstr("VOID")));
  EXPECT_THAT(readme, HasSubstr("- differential-privacy\n"));
  EXPECT_THAT(read_file(temp / "c/report.html"), HasSubstr("4.25"));

  CorpusWriter other(spec_in(temp / "void"));
  while (other.done() < other.total()) add_some(other, 9);
  other.finish(void_card("no privacy card found beside the weights"), {});
  EXPECT_THAT(read_file(temp / "void/README.md"), HasSubstr("NO CLAIM"));
  EXPECT_THAT(read_file(temp / "void/README.md"), Not(HasSubstr("differential-privacy")));
  EXPECT_THAT(read_file(temp / "void/report.html"), HasSubstr("NO CLAIM"));
}

TEST(CorpusWriter, ReadmeSaysWhatReleasesChoseTheImages) {
  const test::TempFolder temp;
  for (const bool noisy : {false, true}) {
    CorpusSpec spec = spec_in(temp / (noisy ? "noisy" : "even"));
    spec.noisy_proportions = noisy;
    spec.candidates = noisy ? 6 : 1;
    CorpusWriter writer(spec);
    make_whole(writer);
    const std::string readme = read_file(spec.folder / "README.md");
    EXPECT_EQ(readme.find("proportions of a noisy count") != std::string::npos, noisy);
    EXPECT_EQ(readme.find("Of 6 images that were drawn for each") != std::string::npos, noisy);
  }
}

TEST(CorpusWriter, ContinuesAfterAKillAtAnyMoment) {
  for (const CorpusFormat format : {CorpusFormat::kFolder, CorpusFormat::kWebDataset}) {
    const test::TempFolder temp;
    CorpusWriter whole(spec_in(temp / "whole/c", format));
    make_whole(whole);
    for (int64_t before = 0; before <= 5; ++before) {
      const fs::path folder = temp / std::to_string(before) / "c";
      const pid_t child = ::fork();
      if (child == 0) {
        CorpusWriter writer(spec_in(folder, format));
        for (int64_t i = 0; i < before; ++i) add_some(writer, 1);
        ::kill(::getpid(), SIGKILL);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status));
      EXPECT_FALSE(fs::exists(folder / "lineage.json"));
      CorpusWriter writer(spec_in(folder, format));
      // Shards are all or nothing; the fifth image ends the only one.
      const bool kept = format == CorpusFormat::kFolder || before == 5;
      EXPECT_EQ(writer.done(), kept ? before : 0);
      make_whole(writer);
      EXPECT_EQ(contents(folder), contents(temp / "whole/c")) << before;
    }
  }
}

TEST(CorpusWriter, PicturesThatAreNotWholeAreMadeAgain) {
  const test::TempFolder temp;
  const fs::path folder = temp / "c";
  {
    CorpusWriter writer(spec_in(folder));
    add_some(writer, 4);
  }
  const fs::path cut = folder / "images/0/000000.png";
  const std::string bytes = read_file(cut);
  std::ofstream(cut, std::ios::binary) << bytes.substr(0, bytes.size() - 5);
  std::ofstream(folder / "images/2/000000.png", std::ios::binary) << "";
  std::ofstream(folder / "images/0/.000002.png.tmp") << "rest of a killed writer";
  CorpusWriter writer(spec_in(folder));
  EXPECT_EQ(writer.done(), 2);
  EXPECT_THAT(writer.next(2), ElementsAre(ImageId{0, 0}, ImageId{2, 0}));
  make_whole(writer);
  EXPECT_EQ(read_file(cut), bytes);
  EXPECT_FALSE(fs::exists(folder / "images/0/.000002.png.tmp"));
}

template <typename Error>
std::string message_of(const CorpusSpec& spec) {
  try {
    CorpusWriter writer(spec);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(CorpusWriter, RefusesOtherSettingsAndSaysWhichDiffer) {
  const test::TempFolder temp;
  const fs::path folder = temp / "c";
  {
    CorpusWriter writer(spec_in(folder));
    add_some(writer, 1);
  }
  CorpusSpec other = spec_in(folder);
  other.settings["scheduler"]["steps"] = 100;
  other.images_per_class[1] = 4;
  const std::string message = message_of<UsageError>(other);
  EXPECT_THAT(message, HasSubstr("scheduler.steps is 50 there and 100 here"));
  EXPECT_THAT(message, HasSubstr("images_per_class.1 is 0 there and 4 here"));
  EXPECT_THAT(message, Not(HasSubstr("seed")));
}

TEST(CorpusWriter, RefusesFoldersThatAreNotItsOwn) {
  const test::TempFolder temp;
  {
    CorpusWriter writer(spec_in(temp / "done"));
    make_whole(writer);
  }
  EXPECT_THAT(message_of<UsageError>(spec_in(temp / "done")), HasSubstr("finished corpus"));
  fs::create_directory(temp / "foreign");
  std::ofstream(temp / "foreign/thesis.tex") << "x";
  EXPECT_THAT(message_of<UsageError>(spec_in(temp / "foreign")), HasSubstr("holds no corpus"));
  EXPECT_THAT(message_of<UsageError>(spec_in(temp / "foreign/thesis.tex")),
              HasSubstr("not a folder"));
  EXPECT_TRUE(fs::exists(temp / "foreign/thesis.tex"));
  fs::create_directory(temp / "empty");
  EXPECT_EQ(message_of<UsageError>(spec_in(temp / "empty")), "no error");
  CorpusSpec nothing = spec_in(temp / "nothing");
  nothing.images_per_class = {0, 0};
  EXPECT_THAT(message_of<UsageError>(nothing), HasSubstr("no images"));
  EXPECT_FALSE(fs::exists(temp / "nothing"));
  std::ofstream(temp / "empty/.sampling.json", std::ios::trunc) << "{";
  EXPECT_THAT(message_of<DataError>(spec_in(temp / "empty")), HasSubstr(".sampling.json"));
}

TEST(CorpusWriter, ShardsHoldPictureAndClass) {
  const test::TempFolder temp;
  CorpusSpec spec = spec_in(temp / "c", CorpusFormat::kWebDataset);
  spec.images_per_class = {1002, 3};
  spec.shape = {.channels = 1, .height = 2, .width = 2};
  CorpusWriter writer(spec);
  while (writer.done() < writer.total()) add_some(writer, 333);
  writer.finish(card(), {});
  EXPECT_FALSE(fs::exists(temp / "c/metadata.csv"));
  std::vector<std::pair<std::string, std::string>> members;
  for (const char* name : {"shard-000000.tar", "shard-000001.tar"}) {
    TarReader reader(temp / "c" / name);
    TarEntry entry;
    while (reader.next(entry)) members.emplace_back(entry.name, reader.read_content());
    EXPECT_EQ(members.size(), name == std::string("shard-000000.tar") ? 2000u : 2010u);
  }
  const std::vector<ImageId> order = corpus_order(spec.images_per_class);
  ASSERT_EQ(members.size(), 2 * order.size());
  EXPECT_EQ(members[0].first, "0-000000.png");
  EXPECT_EQ(members[2].first, "1-000000.png");
  EXPECT_EQ(members[3], (std::pair<std::string, std::string>("1-000000.cls", "1")));
  for (std::size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(decode_image(members[2 * i].second, "p").pixels, picture(spec, order[i]).pixels);
    EXPECT_EQ(members[2 * i + 1].second, std::to_string(order[i].label));
  }
  EXPECT_EQ(decode_image(read_file(temp / "c" / kContactSheet), "s").height, 2 + 2 * 58);
}

/// Twelve classes: names that sort otherwise than their labels, that mean something to a file
/// system or a table, and one of which there is no image.
CorpusSpec named_spec(const fs::path& folder, CorpusFormat format) {
  CorpusSpec spec = spec_in(folder, format);
  spec.class_names = {"zebra", "10", "train", "a,b \"c\"",   "caf\u00e9", "5",
                      "dog",   "2",  "x/y",   "T-shirt|top", "last"};
  spec.images_per_class.assign(spec.class_names.size(), 1);
  spec.images_per_class[6] = 0;
  spec.may_be_untrained.assign(spec.class_names.size(), false);
  spec.may_be_untrained[0] = spec.may_be_untrained[6] = true;
  return spec;
}

TEST(CorpusWriter, FoldersSortAsLabelsAndNamesAreKept) {
  const test::TempFolder temp;
  CorpusWriter writer(named_spec(temp / "c", CorpusFormat::kFolder));
  make_whole(writer);
  std::vector<std::string> folders;
  for (const auto& entry : fs::directory_iterator(temp / "c/images"))
    folders.push_back(entry.path().filename().string());
  std::ranges::sort(folders);  // position = label, as ImageFolder counts, also where one is empty
  EXPECT_THAT(folders, ElementsAre("00_zebra", "01_10", "02", "03_a-b-c", "04_caf", "05", "06_dog",
                                   "07_2", "08_x-y", "09_T-shirt-top", "10_last"));
  const std::string csv = read_file(temp / "c/metadata.csv");
  EXPECT_TRUE(csv.starts_with("file_name,label,class_name\nimages/00_zebra/000000.png,0,zebra\n"));
  EXPECT_THAT(csv, HasSubstr("images/03_a-b-c/000000.png,3,\"a,b \"\"c\"\"\"\n"));
  EXPECT_THAT(csv, HasSubstr("images/02/000000.png,2,train\n"));
  const auto lineage = read_json(temp / "c/lineage.json");
  EXPECT_EQ(
      lineage["classes"][2],
      (nlohmann::json{{"label", 2}, {"name", "train"}, {"folder", "images/02"}, {"images", 1}}));
  EXPECT_EQ(lineage["classes"][6]["may_be_untrained"], true);
  const std::string readme = read_file(temp / "c/README.md");
  EXPECT_THAT(readme, HasSubstr("| 9 | T-shirt\\|top | images/09\\_T-shirt-top | 1 |\n"));
  EXPECT_THAT(readme, HasSubstr("**Perhaps never trained:** zebra."));
  EXPECT_THAT(readme, HasSubstr("allow_empty=True"));
}

TEST(CorpusWriter, ShardsHoldNumberAndName) {
  const test::TempFolder temp;
  CorpusWriter writer(named_spec(temp / "c", CorpusFormat::kWebDataset));
  make_whole(writer);
  TarReader reader(temp / "c/shard-000000.tar");
  std::map<std::string, std::string> members;
  for (TarEntry entry; reader.next(entry);) members[entry.name] = reader.read_content();
  EXPECT_EQ(members.size(), 30u);
  EXPECT_EQ(members["10-000000.cls"], "10");
  EXPECT_EQ(nlohmann::json::parse(members["04-000000.json"]),
            (nlohmann::json{{"label", 4}, {"class_name", "caf\u00e9"}}));
}

TEST(CorpusWriter, UnwritablePlacesAreDataErrors) {
  const test::TempFolder temp;
  std::ofstream(temp / "file") << "x";
  EXPECT_THROW(CorpusWriter(spec_in(temp / "file/below")), DataError);
}

}  // namespace
}  // namespace sfumato
