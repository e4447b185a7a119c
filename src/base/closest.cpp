#include "base/closest.h"

#include <algorithm>
#include <utility>

namespace sinkref {

namespace {

// A letter that is missing weighs less than one that does not belong: people shorten names. A whole component
// ("attn.") that is missing weighs as much as one letter.
constexpr size_t missing = 2, wrong = 3;

/// For each end of a component of the name, where it begins; elsewhere the end itself.
std::vector<size_t> component_begins(std::string_view name) {
  std::vector<size_t> begins(name.size() + 1);
  for (size_t j = 0, begin = 0; j <= name.size(); ++j) {
    const bool ends = j > 0 && name[j - 1] == '.';
    begins[j] = ends ? std::exchange(begin, j) : j;
  }
  return begins;
}

/// More of what was given tells nothing, and would take its time.
constexpr size_t most_letters = 200;

/// The least cost of turning `given` into some part of `name`. Swapped neighbours are one slip.
size_t slips(std::string_view given, std::string_view name) {
  given = given.substr(0, most_letters);
  const std::vector<size_t> begins = component_begins(name);
  std::vector<size_t> before, row(name.size() + 1, 0), next(name.size() + 1);  // it may start anywhere
  for (size_t i = 1; i <= given.size(); ++i) {
    next[0] = i * wrong;
    for (size_t j = 1; j <= name.size(); ++j) {
      next[j] = std::min({row[j - 1] + (given[i - 1] == name[j - 1] ? 0 : wrong), row[j] + wrong,
                          next[j - 1] + missing});
      if (i > 1 && j > 1 && given[i - 1] == name[j - 2] && given[i - 2] == name[j - 1])
        next[j] = std::min(next[j], before[j - 2] + wrong);
      if (begins[j] < j) next[j] = std::min(next[j], next[begins[j]] + missing);
    }
    before = row;
    row = next;
  }
  return *std::min_element(row.begin(), row.end());  // and end anywhere
}

}  // namespace

std::string closest_name(std::string_view given, const std::vector<std::string>& names) {
  return *std::min_element(names.begin(), names.end(), [&](const auto& a, const auto& b) {
    return std::pair(slips(given, a), a.size()) < std::pair(slips(given, b), b.size());
  });
}

std::string did_you_mean(std::string_view given, const std::vector<std::string>& names) {
  if (names.empty()) return "";
  const std::string closest = closest_name(given, names);
  return slips(given, closest) > given.size() ? "" : "; did you mean " + closest + "?";
}

}  // namespace sinkref
