#include "measure/section.h"

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

std::string count_or_dash(size_t count) { return count == 0 ? "–" : std::to_string(count); }

std::vector<Rule> norm_rules(const SinkLayer& sink) {
  return {{"first token", sink.norm_first, false},
          {"half-way", sink.fires_above(), false},
          {"typical", sink.norm_typical, false}};
}

std::vector<double> counting(size_t n, size_t from) {
  std::vector<double> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<double>(from + i);
  return values;
}

std::string PageContext::trace_command(const std::vector<int>& tokens,
                                       const std::string& hooks) const {
  // As --tokens reads them: runs as TOKENxTIMES.
  std::string ids;
  for (size_t i = 0; i < tokens.size();) {
    size_t end = i;
    while (end < tokens.size() && tokens[end] == tokens[i]) ++end;
    ids += (ids.empty() ? "" : ",") + std::to_string(tokens[i]);
    if (end - i > 1) ids += "x" + std::to_string(end - i);
    i = end;
  }
  return "sinkref trace --model " + model + " --tokens " + ids + " --hooks '" + hooks +
         "' --out t.safetensors";
}

std::string PageContext::run_command(const std::string& condition, size_t word,
                                     const std::string& hooks) const {
  for (const ReportInputs::Condition& c : inputs.conditions)
    if (c.name == condition) {
      std::vector<int> tokens = c.prefix;
      tokens.insert(tokens.end(), c.repeats, inputs.sink.words[word].token);
      return trace_command(tokens, hooks);
    }
  return "";
}

}  // namespace sinkref
