#include "loss_composition.h"

#include <algorithm>
#include <cmath>

namespace sfumato {

LossMasses pessimistic(const LossCells& cells, double count) {
  LossMasses result{{}, {}, cells.at_infinity + cells.tail_above, count, 0};
  for (const LossCell& cell : cells.cells) {
    if (result.loss.empty()) {
      result.loss.push_back(cell.low);
      result.mass.push_back(0);
    }
    result.loss.push_back(cell.high);
    result.mass.back() += cell.lack / std::expm1(cell.width());
    result.mass.push_back(cell.excess / -std::expm1(-cell.width()));
  }
  const auto lowest = std::ranges::find_if(result.mass, [](double mass) { return mass > 0; });
  if (lowest != result.mass.end()) *lowest += cells.tail_below;
  return result;
}

namespace {

/// A cell merged into one outcome.
struct Merged {
  double mass, loss;
};

/// Each cell merged by itself, but into one where most releases lie: those within `width` of it.
struct MergedCells {
  std::vector<Merged> below, above;  ///< from the outermost to the middle
  Merged middle{0, 0};
};

MergedCells merge(const LossCells& cells, double width) {
  std::vector<Merged> outcomes;
  for (const LossCell& cell : cells.cells)
    if (cell.mass > 0)
      outcomes.push_back({cell.mass, cell.low + std::min(cell.merged_above(), cell.width())});
  MergedCells result;
  if (outcomes.empty()) return result;
  const auto heaviest = std::ranges::max_element(outcomes, {}, &Merged::mass);
  auto first = heaviest, last = heaviest + 1;  // of what joins the middle
  result.middle = *heaviest;
  const auto join = [&](const Merged& one) {
    // e^-loss is Q/P, and a mean of them.
    const double mass = result.middle.mass + one.mass;
    const double change = one.mass * std::expm1(result.middle.loss - one.loss);
    result.middle = {mass, result.middle.loss - std::log1p(change / mass)};
  };
  // What joins moves the middle a little, and so another may come near enough.
  while (true) {
    if (first != outcomes.begin() && result.middle.loss - (first - 1)->loss < width) {
      join(*--first);
    } else if (last != outcomes.end() && last->loss - result.middle.loss < width) {
      join(*last++);
    } else {
      break;
    }
  }
  result.below.assign(outcomes.begin(), first);
  result.above.assign(last, outcomes.end());
  std::ranges::reverse(result.above);
  return result;
}

/// Outcomes on one side of the middle one, moved to lattice points: each to the next point towards
/// the middle, with just as much of what lies nearer to the middle as brings P/Q to e^point. That
/// mostly has much more mass, so that little of it is needed. `side`: 1 below the middle, -1 above.
std::vector<Merged> on_lattice(std::vector<Merged> outcomes, int side, Merged& middle,
                               double width) {
  std::vector<Merged> result;
  const double offset = middle.loss;
  outcomes.push_back(middle);
  for (std::size_t j = 0; j + 1 < outcomes.size();) {
    const double steps = (outcomes[j].loss - offset) / width;
    const double point = (side > 0 ? std::ceil(steps) : std::floor(steps)) * width;
    const auto missing = [&](const Merged& one) {
      return side * one.mass * std::expm1(point - (one.loss - offset));
    };
    double mass = outcomes[j].mass, need = missing(outcomes[j]);
    for (++j; need > 0 && j < outcomes.size(); ++j) {
      Merged& next = outcomes[j];
      const double gives = -missing(next);
      const double taken = gives > need ? need / gives * next.mass : next.mass;
      mass += taken;
      next.mass -= taken;
      need = gives > need ? 0 : need - gives;
      if (need <= 0) break;
    }
    // Where all that does not suffice, P is cut down to what this point, or the one below, allows.
    if (need > 0 && side > 0) {
      result.push_back({(mass + need) * std::exp(-width), point - width});
    } else {
      result.push_back({mass - std::max(0.0, need), point});
    }
  }
  middle.mass = outcomes.back().mass;
  return result;
}

}  // namespace

LossMasses optimistic(const LossCells& cells, double count, double width) {
  LossMasses result{{}, {}, cells.at_infinity, count, 0};
  MergedCells merged = merge(cells, width);
  result.offset = merged.middle.loss;
  const auto add = [&](const Merged& outcome) {
    result.loss.push_back(outcome.loss);
    result.mass.push_back(outcome.mass);
  };
  for (const Merged& outcome : on_lattice(std::move(merged.below), 1, merged.middle, width))
    add(outcome);
  const std::vector<Merged> above = on_lattice(std::move(merged.above), -1, merged.middle, width);
  add({merged.middle.mass, 0});
  std::ranges::for_each(above.rbegin(), above.rend(), add);
  return result;
}

}  // namespace sfumato
