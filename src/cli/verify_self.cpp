// verify --self: the promise of one set of bits, tried on this machine.

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/inputs.h"
#include "cli/verify_options.h"
#include "sinkref/error.h"
#include "verify/self_check.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

/// 48 tokens that no tokenizer is needed for, the second half a run of one token.
std::vector<int> default_tokens(const Model& model) {
  std::vector<int> tokens;
  for (size_t i = 0; i < std::min<size_t>(48, model.config().max_positions); ++i)
    tokens.push_back(static_cast<int>((i < 24 ? i * 7919 + 1 : 24 * 7919 + 1) %
                                      model.config().vocab_size));
  return tokens;
}

ordered_json axis_json(const SelfCheckAxis& axis) {
  return {{"axis", axis.axis},
          {"setting", axis.setting},
          {"compared", axis.compared},
          {"differing", axis.differing},
          {"first", axis.first.empty() ? ordered_json(nullptr) : ordered_json(axis.first)}};
}

void print_axis(const SelfCheckAxis& axis) {
  std::printf("  %-8s %-28s %9zu rows compared, %zu differ%s%s\n", axis.axis.c_str(),
              axis.setting.c_str(), axis.compared, axis.differing, axis.first.empty() ? "" : ", first ",
              axis.first.c_str());
}

}  // namespace

int verify_self(const VerifyCommand& options) {
  const Model model = open_model(options);
  const bool given = options.has_input();
  const std::vector<int> tokens =
      given ? read_one_sequence(options, model.checkpoint()) : default_tokens(model);
  if (tokens.size() < 8)
    throw InputError("verify --self: " + std::to_string(tokens.size()) +
                     " tokens are too few to split; expected at least 8");
  std::optional<WeightIndex> perturb;
  if (options.perturb) perturb = parse_weight(*options.perturb, model);
  Progress progress = Progress::to_stderr();
  const SelfCheck check = check_self(model, tokens, perturb ? &*perturb : nullptr, progress);
  progress.finish();
  const std::string weight =
      check.perturbed.tensor + "[" + std::to_string(check.perturbed.index) + "]";
  if (options.json) {
    ordered_json j = {{"verdict", check.agrees() ? "agree" : "differ"},
                      {"tokens", tokens.size()},
                      {"arithmetic_version", arithmetic_version},
                      {"axes", ordered_json::array()},
                      {"control", axis_json(check.control)}};
    for (const SelfCheckAxis& axis : check.axes) j["axes"].push_back(axis_json(axis));
    j["control"]["weight"] = weight;
    std::cout << json_text(j) << '\n';
    return check.agrees() ? 0 : 1;
  }
  std::printf("%zu tokens, every tensor of the trace, compared with the plain run bit by bit\n",
              tokens.size());
  for (const SelfCheckAxis& axis : check.axes) print_axis(axis);
  std::printf("Control: %s moved by one ulp\n", weight.c_str());
  print_axis(check.control);
  std::printf("%s\n", check.agrees() ? "the same bits on every axis; the control was caught"
                      : check.control.differing == 0
                          ? "THE CONTROL WAS NOT CAUGHT: no bit of this run depends on that ulp "
                            "(rounding takes it up, or no token reads it); choose a larger weight"
                                                     : "THE BITS DIFFER");
  return check.agrees() ? 0 : 1;
}

}  // namespace sinkref::cli
