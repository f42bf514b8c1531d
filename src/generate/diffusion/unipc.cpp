// UniPC (Zhao et al. 2023, arXiv 2302.04867): the predictor UniP (algorithm 2) and, at the start of
// the next step, whose answer of the network it shares, the corrector UniC (algorithm 1), with
// B(h) = h or e^h - 1 (section 3.1). The numbers of diffusers' UniPCMultistepScheduler.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>
#include <utility>

#include "generate/diffusion/levels.h"
#include "generate/diffusion/solvers.h"
#include "sfumato/config/sections.h"

namespace sfumato {
namespace {

/// rho of sum_j r_j^(i-1) rho_j = b_i, i = 1 ... n.
std::vector<double> solve_moments(const std::vector<double>& r, std::vector<double> b) {
  const std::size_t n = r.size();
  std::vector<std::vector<double>> rows(n, std::vector<double>(n));
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) rows[i][j] = std::pow(r[j], static_cast<double>(i));
  for (std::size_t column = 0; column < n; ++column) {
    std::size_t pivot = column;
    for (std::size_t i = column; i < n; ++i)
      if (std::abs(rows[i][column]) > std::abs(rows[pivot][column])) pivot = i;
    std::swap(rows[column], rows[pivot]);
    std::swap(b[column], b[pivot]);
    for (std::size_t i = 0; i < n; ++i) {
      if (i == column) continue;
      const double factor = rows[i][column] / rows[column][column];
      for (std::size_t j = column; j < n; ++j) rows[i][j] -= factor * rows[column][j];
      b[i] -= factor * b[column];
    }
  }
  for (std::size_t i = 0; i < n; ++i) b[i] /= rows[i][i];
  return b;
}

/// Answers of the network, the newest first: images, or noise.
using Answers = std::deque<at::Tensor>;

class UniPc : public LevelSolver {
 public:
  UniPc(const NoiseSchedule& schedule, const SolverOptions& options, const SampleSettings& settings)
      : LevelSolver(schedule, options, settings),
        order_(settings.solver_order()),
        bh1_(settings.solver_type() == SolverType::kBh1),
        by_image_(settings.predict_x0()),
        uncorrected_(settings.disable_corrector()) {}

  at::Tensor solve(const ModelFn& model, const NoiseSource& noise) const override {
    at::Tensor x = start(noise), before;
    Answers answers;
    int64_t order = 0;
    for (int64_t i = 0; i < options().steps; ++i) {
      const at::Tensor answer = ask(model, x, level(i));
      if (i > 0 && std::ranges::find(uncorrected_, i - 1) == uncorrected_.end())
        x = move(i - 1, before, answers, order, &answer);
      answers.push_front(answer);
      if (std::ssize(answers) > order_) answers.pop_back();
      order = std::min({order_, options().steps - i, i + 1});
      before = x;
      x = move(i, before, answers, order, nullptr);
    }
    return x;
  }

 private:
  const Level& level(int64_t i) const { return levels()[static_cast<std::size_t>(i)]; }

  at::Tensor ask(const ModelFn& model, const at::Tensor& x, const Level& at) const {
    const at::Tensor image = denoised(options(), model, x, at);
    return by_image_ ? image : (x - at.signal * image) / at.noise;
  }

  /// x at level i -> at level i + 1: by UniP; or, with the network's answer there, by UniC.
  at::Tensor move(int64_t i, const at::Tensor& x, const Answers& answers, int64_t order,
                  const at::Tensor* there) const {
    const Level &from = level(i), &to = level(i + 1);
    if (to.sigma() == from.sigma()) return x;
    if (to.noise == 0) return answers[0];
    const double h = to.lambda() - from.lambda();
    const double signed_h = by_image_ ? -h : h, grown = std::expm1(signed_h);
    const double b_h = bh1_ ? signed_h : grown;
    const double scale = by_image_ ? to.signal : to.noise;
    at::Tensor next = (by_image_ ? to.noise / from.noise : to.signal / from.signal) * x -
                      scale * grown * answers[0];
    std::vector<double> r;
    for (int64_t back = 1; back < order; ++back)
      r.push_back((level(i - back).lambda() - from.lambda()) / h);
    if (there != nullptr) r.push_back(1);
    const std::vector<double> rho = weights(r, signed_h, b_h);
    for (std::size_t j = 0; j < r.size(); ++j) {
      const bool last = there != nullptr && j + 1 == r.size();
      next -= scale * b_h * rho[j] / r[j] * ((last ? *there : answers[j + 1]) - answers[0]);
    }
    return next;
  }

  /// One weight for each difference. A single one is 1/2, to the order that it has.
  std::vector<double> weights(const std::vector<double>& r, double signed_h, double b_h) const {
    if (r.size() == 1) return {0.5};
    std::vector<double> b;
    double phi = std::expm1(signed_h) / signed_h - 1, factorial = 1;
    for (std::size_t i = 1; i <= r.size(); ++i) {
      b.push_back(phi * factorial / b_h);
      factorial *= static_cast<double>(i + 1);
      phi = phi / signed_h - 1 / factorial;
    }
    return solve_moments(r, std::move(b));
  }

  std::string diffusers_class() const override {
    return is_edm() ? "EDMDPMSolverMultistepScheduler" : "UniPCMultistepScheduler";
  }
  void add_own_fields(nlohmann::ordered_json& config) const override {
    config["dynamic_thresholding_ratio"] = 0.995;
    config["lower_order_final"] = true;
    config["sample_max_value"] = 1.0;
    config["solver_order"] = order_;
    config["thresholding"] = options().clip_sample;
    if (is_edm()) return;
    config["disable_corrector"] = uncorrected_;
    config["predict_x0"] = by_image_;
    config["solver_type"] = to_string(bh1_ ? SolverType::kBh1 : SolverType::kBh2);
  }
  void add_own_settings(nlohmann::ordered_json& settings) const override {
    if (!is_edm()) return;
    settings["solver"] = "unipc";
    settings["disable_corrector"] = uncorrected_;
    settings["predict_x0"] = by_image_;
    settings["solver_type"] = to_string(bh1_ ? SolverType::kBh1 : SolverType::kBh2);
  }
  std::string own_difference() const override {
    return is_edm() ? "diffusers has no UniPC for edm networks; with diffusers choose dpmpp_2m"
                    : "";
  }

  int64_t order_;
  bool bh1_, by_image_;
  std::vector<int64_t> uncorrected_;
};

}  // namespace

std::unique_ptr<Solver> make_unipc(const NoiseSchedule& schedule, const SolverOptions& options,
                                   const SampleSettings& settings) {
  return std::make_unique<UniPc>(schedule, options, settings);
}

}  // namespace sfumato
