#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

namespace sfumato {

/// Rows of numbers as files of stages hold them: float64 [n, m] as lists of lists.
inline nlohmann::ordered_json json_of_rows(const at::Tensor& rows) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  const double* values = rows.const_data_ptr<double>();
  for (std::int64_t i = 0; i < rows.size(0); ++i, values += rows.size(1))
    json.push_back(std::vector<double>(values, values + rows.size(1)));
  return json;
}

/// The same read back. Undefined unless there are rows of finite numbers, as many in each; an
/// nlohmann exception where it is something else.
inline at::Tensor rows_of_json(const nlohmann::json& json) {
  const auto rows = json.get<std::vector<std::vector<double>>>();
  const std::size_t columns = rows.empty() ? 0 : rows.front().size();
  const auto is_row = [&](const std::vector<double>& row) {
    return row.size() == columns &&
           std::ranges::all_of(row, [](double value) { return std::isfinite(value); });
  };
  if (columns == 0 || !std::ranges::all_of(rows, is_row)) return {};
  at::Tensor found = at::empty({std::ssize(rows), static_cast<std::int64_t>(columns)}, at::kDouble);
  double* out = found.mutable_data_ptr<double>();
  for (const std::vector<double>& row : rows) out = std::ranges::copy(row, out).out;
  return found;
}

}  // namespace sfumato
