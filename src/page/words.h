#pragma once

#include <cstddef>
#include <string>
#include <vector>

// Numbers and lists as the page writes them.

namespace sinkref {

std::string plain(double value);  ///< 22712, 135.4, 0.031
std::string percent(double share);
std::string list_text(const std::vector<size_t>& values);
/// "a", "a and b", "a, b and c"
std::string joined_text(const std::vector<std::string>& parts);
/// The same of parts that have commas themselves: "a; b; and c"
std::string listed_text(const std::vector<std::string>& parts);
std::string count_or_dash(size_t count);
/// With a capital and a full stop.
std::string sentence(std::string text);
std::vector<double> counting(size_t n, size_t from = 0);  ///< from, from + 1, …

}  // namespace sinkref
