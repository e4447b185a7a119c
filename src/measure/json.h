#pragma once

#include <nlohmann/json.hpp>
#include <vector>

// Numbers and lists as report.json writes them.

namespace sinkref {

/// Rounded to 9 significant digits, which fp32 holds; infinities and NaN become null.
nlohmann::ordered_json number(double value);
nlohmann::ordered_json numbers(const std::vector<double>& values);

/// A list of what `function` makes of each item.
template <class List, class Function>
nlohmann::ordered_json each(const List& list, const Function& function) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const auto& item : list) all.push_back(function(item));
  return all;
}

}  // namespace sinkref
