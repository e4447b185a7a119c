#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json_file.h"
#include "sinkref/error.h"
#include "sinkref/verify.h"

namespace sinkref {

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr size_t largest_file = size_t{16} << 20;

/// 0 is a budget too: where numbers are only passed on, nothing may change.
double not_negative(const json& value, const std::string& where) {
  if (!value.is_number() || !(value.get<double>() >= 0) || !std::isfinite(value.get<double>()))
    throw InputError(where + ": found " + quoted(value.dump().substr(0, 40)) +
                     ", expected a number, 0 or above");
  return value.get<double>();
}

Budget::Steps read_steps(const json& value, const std::string& where) {
  if (!value.is_array()) return {{0, not_negative(value, where)}};
  Budget::Steps steps;
  for (const json& step : value) {
    if (!step.is_array() || step.size() != 2 || !step[0].is_number_unsigned())
      throw InputError(where + ": found " + quoted(step.dump().substr(0, 40)) +
                       ", expected [position, value]");
    steps.push_back({step[0].get<size_t>(), not_negative(step[1], where)});
    if (steps.size() > 1 && steps.back().position <= steps[steps.size() - 2].position)
      throw InputError(where + ": positions must grow");
  }
  if (steps.empty() || steps[0].position != 0)
    throw InputError(where + ": expected a number, or steps of which the first is at position 0");
  return steps;
}

ordered_json steps_json(const Budget::Steps& steps) {
  ordered_json list = ordered_json::array();
  for (const Budget::Step& step : steps) {
    char digits[32];  // three digits: a budget is no finer than that
    std::snprintf(digits, sizeof digits, "%.3g", step.value);
    list.push_back({step.position, std::strtod(digits, nullptr)});
  }
  return list;
}

}  // namespace

Budget Budget::read(const std::filesystem::path& file, size_t layers) {
  const json all = read_json_file(file, largest_file);
  const std::string name = file.string();
  if (!all.is_object() || !all.contains("tensors") || !all["tensors"].is_object() ||
      all["tensors"].empty())
    throw InputError(name + ": has no \"tensors\", expected {\"tensors\": {NAME: {\"local\": …, "
                     "\"propagated\": …}}} as --write-budget makes it");
  for (const auto& [key, value] : all.items())
    if (key != "tensors" && key != "provenance")
      throw InputError(name + ": unknown key " + quoted(key) +
                       "; expected \"tensors\" and \"provenance\"");
  std::vector<std::string> names;
  for (Hook hook : all_hooks(layers)) names.push_back(hook_name(hook));
  Budget budget;
  for (const auto& [key, entry] : all["tensors"].items()) {
    const std::string glob = key;
    const std::string where = name + ": tensors: " + quoted(glob);
    if (std::none_of(names.begin(), names.end(),
                     [&](const std::string& hook) { return glob_matches(glob, hook); }))
      throw InputError(where + " matches no tensor of this model");
    if (!entry.is_object() || entry.empty())
      throw InputError(where + ": expected {\"local\": …, \"propagated\": …}");
    Entry read;
    for (const auto& [kind, value] : entry.items()) {
      if (kind != "local" && kind != "propagated")
        throw InputError(where + ": unknown key " + quoted(kind) +
                         "; expected \"local\" and \"propagated\"");
      (kind == "local" ? read.local : read.propagated) = read_steps(value, where + ": " + kind);
    }
    budget.set(glob, std::move(read));
  }
  return budget;
}

std::string Budget::text(const std::map<std::string, std::string>& provenance) const {
  ordered_json tensors = ordered_json::object();
  for (const auto& [name, entry] : entries_) {
    ordered_json& tensor = tensors[name];
    if (!entry.local.empty()) tensor["local"] = steps_json(entry.local);
    if (!entry.propagated.empty()) tensor["propagated"] = steps_json(entry.propagated);
  }
  // One tensor a line, so that it can be read and edited.
  std::string text = "{\"provenance\": " + ordered_json(provenance).dump() + ",\n \"tensors\": {";
  const char* separator = "\n";
  for (const auto& [name, tensor] : tensors.items()) {
    text += separator + ("  " + ordered_json(name).dump() + ": " + tensor.dump());
    separator = ",\n";
  }
  return text + "\n }}\n";
}

const Budget::Entry* Budget::find(const std::string& name) const {
  if (const auto found = entries_.find(name); found != entries_.end()) return &found->second;
  const Entry* best = nullptr;
  size_t length = 0;
  for (const auto& [glob, entry] : entries_)
    if (glob_matches(glob, name) && glob.size() > length) {
      best = &entry;
      length = glob.size();
    }
  return best;
}

double Budget::at(const Steps& steps, size_t position) {
  double value = 0;
  for (const Step& step : steps)
    if (step.position <= position) value = step.value;
  return value;
}

}  // namespace sinkref
