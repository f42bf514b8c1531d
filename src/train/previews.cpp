#include "train/previews.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>

#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/corpus/contact_sheet.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/io/image_codec.h"
#include "sfumato/report/preview_page.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Steps of the pictures in a folder, in their order.
std::vector<std::int64_t> steps_in(const fs::path& folder) {
  std::vector<std::int64_t> steps;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step_") || entry.path().extension() != ".png") continue;
    if (const auto step = parse_int64(entry.path().stem().string().substr(5)))
      steps.push_back(*step);
  }
  std::ranges::sort(steps);
  return steps;
}

std::string picture_of(std::int64_t step) { return fmt::format("step_{:06}.png", step); }

Image tile_of(const at::Tensor& image) {
  Image tile{
      .height = image.size(0), .width = image.size(1), .channels = image.size(2), .pixels = {}};
  const auto* bytes = image.const_data_ptr<std::uint8_t>();
  tile.pixels.assign(bytes, bytes + image.numel());
  return tile;
}

}  // namespace

ReleasedWeightsInPlace::ReleasedWeightsInPlace(const Generator& generator) {
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> drawn_from;
  const NamedGroups state = generator.state();
  for (const auto& [name, value] : group_of(state, kReleasedGroup)) drawn_from.emplace(name, value);
  for (const auto& [name, value] : generator.released_weights()) {
    const auto found = drawn_from.find(name);
    if (found == drawn_from.end() || found->second.is_same(value)) continue;
    own_.emplace_back(found->second, found->second.clone());
    found->second.copy_(value);
  }
}

ReleasedWeightsInPlace::~ReleasedWeightsInPlace() {
  const at::NoGradGuard no_grad;
  for (auto& [weight, own] : own_) weight.copy_(own);
}

Previews::Previews(const Config& config, Generator& generator, const ImageShape& shape,
                   fs::path folder, StepReport& report, std::int64_t step)
    : config_(config),
      generator_(generator),
      shape_(shape),
      folder_(std::move(folder)),
      report_(report),
      budget_(config.preview.share()) {
  if (!fs::is_directory(folder_)) return;
  for (const std::int64_t later : steps_in(folder_))
    if (later > step) fs::remove(folder_ / picture_of(later));
}

bool Previews::is_due(const Config& config, std::int64_t step) {
  return config.preview.images() > 0 && step % config.preview.every() == 0;
}

double Previews::elapsed_s() const { return seconds_since(start_); }

bool Previews::is_paid_for() {
  if (off_) return false;
  if (budget_.allows(elapsed_s())) return true;
  if (!said_ && budget_.knows())
    log_info(fmt::format(
        "a preview takes about {}, and preview.share={} of the time so far does not pay for it: it "
        "is left out, and so are others until it does (fewer: preview.images, preview.steps)",
        human_duration(budget_.expected_s()), config_.preview.share()));
  said_ = said_ || budget_.knows();
  return false;
}

/// The settings sample.* but for the number of steps; guidance only where the network can.
void Previews::make_sampler() {
  as_drawn_ = std::make_unique<Config>();
  (void)as_drawn_->read_yaml(config_.resolved_yaml(), "the run's configuration");
  const GeneratorFacts facts = generator_.facts();
  const std::int64_t classes = config_.data.num_classes();
  SampledImages images{shape_, classes > 0, std::nullopt};
  if (classes < facts.class_rows) images.null_label = classes;
  if (facts.class_rows > 0 && !images.null_label) as_drawn_->sample.guidance.set(0);
  if (config_.model.family() != "gan")
    as_drawn_->sample.steps.set(
        std::min(config_.preview.steps(), config_.diffusion.num_train_timesteps()));
  sampler_ = generator_.sampler(*as_drawn_, images);
  const std::int64_t side = std::max(shape_.height, shape_.width);
  rows_ = contact_sheet_rows(images_per_class({.count = config_.preview.images()}, classes),
                             side * contact_sheet_scale(side));
  make_folder(folder_, 0700);
}

void Previews::draw(std::int64_t step, std::int64_t end, std::optional<double> epsilon) {
  const Clock::time_point begin = Clock::now();
  try {
    const ReleasedWeightsInPlace average(generator_);
    if (!sampler_) make_sampler();
    if (!budget_.knows()) {
      // One image says what all will take at most.
      const Clock::time_point probe = Clock::now();
      sampler_->draw(std::span(rows_.front()).first(1));
      std::int64_t images = 0;
      for (const auto& row : rows_) images += std::ssize(row);
      budget_.expect(seconds_since(probe) * static_cast<double>(images));
      budget_.spend(seconds_since(begin));
      if (!is_paid_for()) return;
      budget_.spend(-seconds_since(begin));
    }
    draw_sheet(step, end, epsilon);
    budget_.expect(seconds_since(begin));
  } catch (const std::exception& error) {
    off_ = true;
    log_warning(fmt::format("no previews from step {} on: {}", step, error.what()));
  }
  budget_.spend(seconds_since(begin));
}

void Previews::draw_sheet(std::int64_t step, std::int64_t end, std::optional<double> epsilon) {
  std::vector<ImageId> ids;
  for (const auto& row : rows_) ids.insert(ids.end(), row.begin(), row.end());
  std::vector<Image> images;
  const auto batch = static_cast<std::size_t>(config_.sample.batch());
  for (std::size_t first = 0; first < ids.size(); first += batch) {
    const at::Tensor drawn =
        sampler_->draw(std::span(ids).subspan(first, std::min(batch, ids.size() - first)));
    for (std::int64_t i = 0; i < drawn.size(0); ++i) images.push_back(tile_of(drawn.select(0, i)));
  }
  std::vector<std::vector<Image>> tiles;
  auto next = images.begin();
  for (const auto& row : rows_) {
    tiles.emplace_back(next, next + std::ssize(row));
    next += std::ssize(row);
  }
  const Image sheet =
      contact_sheet(tiles, contact_sheet_scale(std::max(shape_.height, shape_.width)));
  const std::string png = encode_png(sheet);
  write_file_atomic(folder_ / picture_of(step), png, 0600);
  ++drawn_;
  report_.preview(step, png, sheet.height, sheet.width);
  write_page(step, end, epsilon);
}

void Previews::write_page(std::int64_t step, std::int64_t end,
                          std::optional<double> epsilon) const {
  PreviewPage page;
  page.step = step;
  page.end = end;
  if (epsilon) page.epsilon = epsilon_text(*epsilon);
  for (const std::int64_t each : steps_in(folder_))
    page.pictures.emplace_back(each, picture_of(each));
  std::ranges::reverse(page.pictures);
  write_file_atomic(folder_ / "index.html", preview_page(page), 0600);
}

std::string Previews::summary() const {
  if (drawn_ == 0) return {};
  return fmt::format("{} previews took {:.1f} s, {:.2g} % of the time: {}", drawn_,
                     budget_.spent_s(), 100 * budget_.spent_s() / std::max(elapsed_s(), 1e-9),
                     (folder_ / "index.html").string());
}

}  // namespace sfumato
