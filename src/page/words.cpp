#include "page/words.h"

#include <cstdio>

namespace sinkref {

std::string plain(double value) {
  char text[32];
  const double size = value < 0 ? -value : value;
  std::snprintf(text, sizeof text, size >= 1000 ? "%.0f" : size >= 10 ? "%.1f" : "%.3g", value);
  return text;
}

std::string percent(double share) {
  const bool near_an_end = share != 0 && share != 1 && (share < 0.0995 || share > 0.9905);
  char text[32];
  std::snprintf(text, sizeof text, near_an_end ? "%.1f\u00a0%%" : "%.0f\u00a0%%", 100 * share);
  return text;
}

std::string list_text(const std::vector<size_t>& values) {
  std::string text;
  for (size_t value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return text;
}

std::string joined_text(const std::vector<std::string>& parts) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i)
    text += (i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ") + parts[i];
  return text;
}

std::string listed_text(const std::vector<std::string>& parts) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i)
    text += (i == 0 ? "" : i + 1 == parts.size() ? "; and " : "; ") + parts[i];
  return text;
}

std::string count_or_dash(size_t count) { return count == 0 ? "–" : std::to_string(count); }

std::string sentence(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 32);
  return text + ".";
}

std::vector<double> counting(size_t n, size_t from) {
  std::vector<double> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<double>(from + i);
  return values;
}

}  // namespace sinkref
