#include "loss_cells.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "mixture_density.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

/// Gauss-Legendre on [-1, 1], four nodes: exact for polynomials of degree 7.
constexpr double kNodes[] = {-0.8611363115940526, -0.3399810435848563, 0.3399810435848563,
                             0.8611363115940526};
constexpr double kWeights[] = {0.3478548451374538, 0.6521451548625461, 0.6521451548625461,
                               0.3478548451374538};

/// ln(P/Q) as a function of t, the output in units in which it grows: t = x, or -x where P lies
/// below Q.
class PrivacyLoss {
 public:
  PrivacyLoss(const DominatingPair& pair, double sigma)
      : p_(pair.first, sigma), q_(pair.second, sigma), sigma_(sigma) {
    const auto [p_low, p_high] = std::ranges::minmax(pair.first.centres);
    const auto [q_low, q_high] = std::ranges::minmax(pair.second.centres);
    sign_ = p_high - q_low >= q_high - p_low ? 1 : -1;
    p_mixture_ = pair.first;
    terms_ = static_cast<double>(pair.first.centres.size() + pair.second.centres.size());
  }

  struct At {
    double loss, ln_p;  ///< ln_p: density of P, without the normal constant of N(0, sigma^2)
  };
  At at(double t) const {
    const double x = sign_ * t;
    const double p_excess = p_.trivial() ? 0 : p_.excess(x);
    const double q_excess = q_.trivial() ? 0 : q_.excess(x);
    const double ln_p = p_.trivial() ? 0 : p_.ln(x, p_excess);
    const double ln_q = q_.trivial() ? 0 : q_.ln(x, q_excess);
    return {ln_p - ln_q, ln_p - x * x / (2 * sigma_ * sigma_)};
  }
  double slope(double t) const {
    const double x = sign_ * t;
    return sign_ * ((p_.trivial() ? 0 : p_.slope(x)) - (q_.trivial() ? 0 : q_.slope(x)));
  }
  /// At least the slope anywhere between two outputs: each density's own is monotone, being the
  /// mean of its centres as the output tells them.
  double steepest(double from, double to) const {
    const auto larger = [&](const MixtureDensity& density, double sign) {
      if (density.trivial()) return 0.0;
      return std::max(sign * density.slope(sign_ * from), sign * density.slope(sign_ * to));
    };
    return larger(p_, sign_) + larger(q_, -sign_);
  }
  /// P mass above t, or below it.
  double tail(double t, bool above) const {
    double mass = 0;
    for (std::size_t j = 0; j < p_mixture_.centres.size(); ++j) {
      const double sigmas = (t - sign_ * p_mixture_.centres[j]) / sigma_;
      mass += std::exp(p_mixture_.ln_weights[j]) * normal_cdf(above ? -sigmas : sigmas);
    }
    return mass;
  }
  /// A t beyond which P has at most `mass`, and not much less.
  double tail_begin(double mass, bool above) const {
    const double side = above ? 1 : -1;
    double inside = -std::numeric_limits<double>::infinity();
    for (const double centre : p_mixture_.centres) inside = std::max(inside, side * sign_ * centre);
    double outside = inside + sigma_ * (2 + std::sqrt(-2 * std::log(mass)));
    while (inside > outside - 100 * sigma_ && tail(side * inside, above) < mass) inside -= sigma_;
    for (int i = 0; i < 40; ++i) {
      const double middle = 0.5 * (inside + outside);
      (tail(side * middle, above) <= mass ? outside : inside) = middle;
    }
    return side * outside;
  }
  double sigma() const { return sigma_; }
  /// Exponentials that an evaluation takes.
  double terms() const { return terms_; }

  /// The t in [low, high] with this loss, or the end that is nearer to it.
  double inverse(double loss, double low, double high) const {
    const double at_low = at(low).loss, at_high = at(high).loss;
    if (!(loss > at_low)) return low;
    if (!(loss < at_high)) return high;
    double t = low + (high - low) * (loss - at_low) / (at_high - at_low);
    for (int i = 0; i < 200; ++i) {
      const double miss = at(t).loss - loss;
      if (miss == 0) return t;
      (miss > 0 ? high : low) = t;
      const double slope_here = slope(t);
      double next = slope_here > 0 ? t - miss / slope_here : low;
      // A bound that Newton keeps missing is halved in instead.
      if (!(next > low && next < high)) next = 0.5 * (low + high);
      if (std::fabs(next - t) <= 1e-13 * (sigma_ + std::fabs(t))) return next;
      t = next;
    }
    return t;
  }

 private:
  MixtureDensity p_, q_;
  double sigma_;
  double sign_ = 1, terms_ = 0;
  GaussianMixture p_mixture_;
};

/// Adds the outcomes t in [from, to], whose losses lie in the cell, to it; returns how many
/// evaluations it took.
double integrate(const PrivacyLoss& loss, double weight, double from, double to, LossCell& cell) {
  if (!(to > from)) return 0;
  // Densities vary on the scale of sigma, and pieces in which the loss grows by half a nat keep the
  // relative error below 1e-12.
  const double sigma = loss.sigma(), width = cell.width();
  const double pieces = std::ceil((to - from) * std::max(16 / sigma, 2 * loss.steepest(from, to)));
  const double half = 0.5 * (to - from) / pieces;
  const double ln_constant = std::log(weight * half / sigma) - 0.5 * std::log(2 * std::acos(-1.0));
  for (double piece = 0; piece < pieces; ++piece) {
    const double middle = from + (2 * piece + 1) * half;
    for (int i = 0; i < 4; ++i) {
      const PrivacyLoss::At here = loss.at(middle + half * kNodes[i]);
      const double mass = kWeights[i] * std::exp(here.ln_p + ln_constant);
      const double above = std::clamp(here.loss - cell.low, 0.0, width);
      cell.mass += mass;
      cell.excess += mass * -std::expm1(-above);
      cell.lack += mass * std::expm1(width - above);
    }
  }
  return 4 * pieces;
}

// A mesh begins with some so many cells, of at most so many nats each.
constexpr double kFirstCells = 16, kWidestCell = 8;
constexpr double kMostFirstCells = 1 << 17;

}  // namespace

double LossCell::merged_above() const { return -std::log1p(-std::min(excess / mass, 1.0)); }

/// A pair of a mechanism, with its weight.
class LossMesh::Part {
 public:
  explicit Part(const WeightedPair& pair) : loss(pair.pair, pair.sigma), weight(pair.weight) {}
  PrivacyLoss loss;
  double weight;
};

std::optional<LossMesh> LossMesh::of(std::span<const WeightedPair> mechanism, double tail_mass,
                                     double max_work) {
  LossMesh mesh;
  double low = std::numeric_limits<double>::infinity(), high = -low, work = 0;
  Edges ends{};
  for (const WeightedPair& pair : mechanism) {
    const auto part = std::make_shared<const Part>(pair);
    const PrivacyLoss& loss = part->loss;
    std::array<double, 2>& end = ends.at(mesh.parts_.size());
    end = {loss.tail_begin(tail_mass, false), loss.tail_begin(tail_mass, true)};
    low = std::min(low, loss.at(end[0]).loss);
    high = std::max(high, loss.at(end[1]).loss);
    work += loss.terms() * 4 * (end[1] - end[0]) *
            std::max(16 / pair.sigma, 2 * loss.steepest(end[0], end[1]));
    mesh.cells_.tail_above += pair.weight * loss.tail(end[1], true);
    mesh.cells_.tail_below += pair.weight * loss.tail(end[0], false);
    mesh.parts_.push_back(part);
  }
  if (!(work <= max_work) || !(high - low <= kMostFirstCells * kWidestCell)) return {};
  mesh.edges_.push_back(ends);
  mesh.cut(low, high);
  return mesh;
}

std::optional<LossMesh> LossMesh::of(const ApproximateRelease& mechanism) {
  LossMesh mesh;
  if (!(2 * mechanism.epsilon <= kMostFirstCells * kWidestCell)) return {};
  mesh.cells_.at_infinity = mechanism.delta;
  if (mechanism.epsilon == 0) {
    mesh.atoms_ = {{0, 1 - mechanism.delta}};
  } else {
    for (const double loss : {-mechanism.epsilon, mechanism.epsilon})
      mesh.atoms_.push_back({loss, (1 - mechanism.delta) / (1 + std::exp(-loss))});
  }
  mesh.edges_.emplace_back();
  mesh.cut(-mechanism.epsilon, mechanism.epsilon);
  return mesh;
}

/// The first cells, of a power of two; edges_ holds the ends of all outcomes.
void LossMesh::cut(double low, double high) {
  // Not so narrow that a double does not tell neighbouring borders apart.
  const double least = std::max(0x1p-60, 0x1p-40 * std::max(std::fabs(low), std::fabs(high)));
  const double about = std::clamp((high - low) / kFirstCells, least, kWidestCell);
  const double width = std::ldexp(1.0, std::ilogb(about));
  // One more at each end, where the floor of a quotient may differ by rounding.
  const double first = std::floor(low / width) - 1, last = std::floor(high / width) + 1;
  const Edges all = edges_.front();
  Edges edges = all;
  edges_.clear();
  for (double k = first; k <= last; ++k) {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      edges[i][1] =
          k == last ? all[i][1] : parts_[i]->loss.inverse((k + 1) * width, edges[i][0], all[i][1]);
    }
    cells_.cells.push_back(filled(k * width, (k + 1) * width, edges));
    edges_.push_back(edges);
    for (std::size_t i = 0; i < parts_.size(); ++i) edges[i][0] = edges[i][1];
  }
}

LossCell LossMesh::filled(double low, double high, const Edges& edges) {
  LossCell cell{.low = low, .high = high};
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = *parts_[i];
    work_ += part.loss.terms() * integrate(part.loss, part.weight, edges[i][0], edges[i][1], cell);
  }
  for (const Atom& atom : atoms_) {
    if (!(atom.loss >= low && atom.loss < high)) continue;
    cell.mass += atom.mass;
    cell.excess += atom.mass * -std::expm1(low - atom.loss);
    cell.lack += atom.mass * std::expm1(high - atom.loss);
  }
  return cell;
}

void LossMesh::halve(std::span<const char> marks) {
  std::vector<LossCell> cells;
  std::vector<Edges> edges;
  cells.reserve(2 * cells_.cells.size());
  edges.reserve(2 * cells_.cells.size());
  for (std::size_t j = 0; j < cells_.cells.size(); ++j) {
    const LossCell& cell = cells_.cells[j];
    if (!marks[j]) {
      cells.push_back(cell);
      edges.push_back(edges_[j]);
      continue;
    }
    const double middle = cell.low + 0.5 * cell.width();
    Edges below = edges_[j], above = edges_[j];
    for (std::size_t i = 0; i < parts_.size(); ++i)
      below[i][1] = above[i][0] = parts_[i]->loss.inverse(middle, below[i][0], above[i][1]);
    cells.push_back(filled(cell.low, middle, below));
    cells.push_back(filled(middle, cell.high, above));
    edges.push_back(below);
    edges.push_back(above);
  }
  cells_.cells = std::move(cells);
  edges_ = std::move(edges);
}

}  // namespace sfumato
