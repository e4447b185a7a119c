// Comparisons that need no float64 run: two traces, and bits against this model's own fp32 run.

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json_file.h"
#include "checkpoint/readers.h"
#include "sinkref/error.h"
#include "sinkref/verify.h"
#include "verify/candidate.h"
#include "verify/difference.h"
#include "verify/trace_values.h"

namespace sinkref {

namespace {

using nlohmann::json;

/// "blocks.12.attn.hook_z" -> its hook, or nothing for a name no model has.
std::optional<Hook> hook_named(const std::string& name) {
  size_t layer = 0;
  if (name.starts_with("blocks.") && name.size() > 7 && name[7] >= '0' && name[7] <= '9')
    layer = std::min<size_t>(std::strtoul(name.c_str() + 7, nullptr, 10), 100000);
  for (size_t point = 0; point <= static_cast<size_t>(HookPoint::Logits); ++point) {
    const Hook hook{static_cast<HookPoint>(point), layer};
    if (hook_name(hook) == name) return hook;
  }
  return std::nullopt;
}

struct Named {
  Hook hook;
  std::string name;
};

/// The hooks of a trace in causal order; other names (but for tokens) become problems.
std::vector<Named> hooks_of(const TraceFile& file, std::vector<std::string>& problems) {
  std::vector<Named> all;
  for (const std::string& name : file.names()) {
    if (name == "tokens" || name == "lengths" || name == "positions" || name == "rope.inv_freq") continue;
    if (const std::optional<Hook> hook = hook_named(name))
      all.push_back({*hook, name});
    else
      problems.push_back(file.path().filename().string() + ": unused tensor " + quoted(name) +
                         ": no hook has that name");
  }
  const size_t layers = 100001;  // any number beyond all layers keeps the order
  std::sort(all.begin(), all.end(), [](const Named& a, const Named& b) {
    return hook_index(a.hook, layers) < hook_index(b.hook, layers);
  });
  return all;
}

struct Layout {
  size_t sequences, heads, positions, width;  // heads is 1 but for attention
};

std::optional<Layout> layout_of(Hook hook, const std::vector<uint64_t>& shape) {
  const bool attention = is_attention(hook.point);
  if (shape.size() < 3 || (attention && shape.size() != 4)) return std::nullopt;
  Layout l{shape[0], attention ? shape[1] : 1, shape[attention ? 2 : 1], 1};
  for (size_t i = attention ? 3 : 2; i < shape.size(); ++i) l.width *= shape[i];
  return l.sequences * l.heads * l.positions * l.width == 0 ? std::nullopt
                                                             : std::optional<Layout>(l);
}

std::vector<size_t> index_of(const std::vector<uint64_t>& shape, size_t flat) {
  std::vector<size_t> index(shape.size());
  for (size_t i = shape.size(); i-- > 0; flat /= shape[i]) index[i] = flat % shape[i];
  return index;
}

/// One row in bits or against a budget. Where bits are asked for, one differing bit is over.
TokenDifference compare_row(HookPoint point, const std::vector<double>& reference,
                            const std::vector<double>& theirs, double budget, bool exact) {
  const RowDifference row = row_difference(reference.data(), theirs.data(), reference.size());
  TokenDifference d;
  const double unit = point == HookPoint::AttnScores ? 1 : row.truth_rms();
  size_t index = row.index;
  for (size_t i = 0; i < reference.size(); ++i) {
    const bool same = std::bit_cast<uint64_t>(reference[i]) == std::bit_cast<uint64_t>(theirs[i]);
    const bool near = std::fabs(theirs[i] - reference[i]) <= budget * unit;
    if (same || (!exact && (near || reference[i] == theirs[i]))) continue;
    if (exact && d.over == 0 && row.max_abs == 0) index = i;  // +0 and -0, or NaN bits
    ++d.over;
  }
  d.local = d.propagated = row.error_squares == 0 ? 0 : row.rms() / unit;
  d.local_budget = d.propagated_budget = exact ? 0 : budget;
  if (exact && d.over > 0 && d.local == 0) d.local = d.propagated = std::numeric_limits<double>::min();
  d.max_abs = row.max_abs;
  d.index = {index};
  d.truth = d.expected = d.our_value = reference[index];
  d.their_value = theirs[index];
  d.ulps = ulps_between(static_cast<float>(reference[index]), static_cast<float>(theirs[index]));
  d.relative_l2 = row.error_squares == 0 ? 0 : row.rms() / row.truth_rms();
  d.nan = row.nan;
  d.inf = row.inf;
  return d;
}

TensorDifference compare_tensor(const Named& named, const StoredTensor& reference,
                                const StoredTensor& theirs, const Layout& layout,
                                const std::vector<double>& positions, const Budget::Entry* budget,
                                bool exact) {
  TensorDifference tensor{named.name, named.hook, {}, 0, 0};
  std::vector<double> a(layout.width), b(layout.width);
  for (size_t s = 0; s < layout.sequences; ++s)
    for (size_t p = 0; p < layout.positions; ++p) {
      const size_t position = p < positions.size() ? static_cast<size_t>(positions[p]) : p;
      TokenDifference worst;
      for (size_t head = 0; head < layout.heads; ++head) {
        const size_t row = (s * layout.heads + head) * layout.positions + p;
        read_values(reference, row * layout.width, layout.width, a.data());
        read_values(theirs, row * layout.width, layout.width, b.data());
        const double allowed = budget ? Budget::at(budget->propagated, position) : 0;
        TokenDifference d = compare_row(named.hook.point, a, b, allowed, exact);
        d.index = index_of(reference.shape, row * layout.width + d.index[0]);
        const size_t over = worst.over + d.over, nan = worst.nan + d.nan, inf = worst.inf + d.inf;
        if (head == 0 || d.local > worst.local) worst = d;
        worst.over = over;
        worst.nan = nan;
        worst.inf = inf;
      }
      worst.sequence = s;
      worst.token = position;
      tensor.tokens_over_local += !(worst.local_ratio() <= 1);
      tensor.tokens.push_back(std::move(worst));
    }
  return tensor;
}

void compare_tokens(const TraceFile& a, const TraceFile& b, VerifyResult& result) {
  if (!a.has("tokens") || !b.has("tokens")) {
    if (a.has("tokens") != b.has("tokens"))
      result.problems.push_back("tokens: in one of the two traces only");
    return;
  }
  const std::vector<double> ours = a.values("tokens"), theirs = b.values("tokens");
  if (a.shape("tokens") == b.shape("tokens") && ours == theirs) return;
  const auto wrong = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end());
  result.wrong_token = static_cast<size_t>(wrong.first - ours.begin());
  result.problems.push_back("other tokens: the first that differs is at " +
                            std::to_string(*result.wrong_token));
}

/// Those of the metadata "config", or null.
json frequencies_in_metadata(const TraceFile& file) {
  const auto found = file.metadata().find("config");
  if (found == file.metadata().end()) return nullptr;
  try {
    const json config = parse_json(found->second, "");
    return config.is_object() && config.contains("inv_freq") ? config["inv_freq"] : json();
  } catch (const InputError&) {  // another engine's, in words of its own
    return nullptr;
  }
}

/// How long each sequence is; without "lengths" as long as there is room.
std::vector<double> lengths_of(const TraceFile& file) {
  if (file.has("lengths")) return file.values("lengths");
  if (!file.has("tokens") || file.shape("tokens").size() != 2) return {};
  const std::vector<uint64_t> shape = file.shape("tokens");
  return std::vector<double>(shape[0], static_cast<double>(shape[1]));
}

/// The positions that a trace of some of them holds; none: all.
std::vector<double> positions_of(const TraceFile& file) {
  return file.has("positions") ? checked_values(file, "positions", {any_extent}, {"I64"}) : std::vector<double>();
}

/// What no hook has: padding is no result, and RoPE's frequencies are part of the bits.
void compare_lengths_and_frequencies(const TraceFile& a, const TraceFile& b, bool exact,
                                     VerifyResult& result) {
  if (a.has("tokens") && b.has("tokens") && lengths_of(a) != lengths_of(b))
    result.problems.push_back("other lengths: the sequences do not end at the same tokens");
  std::vector<std::string>& where = exact ? result.problems : result.notes;
  const char* name = "rope.inv_freq";
  if (a.has(name) && b.has(name)) {
    if (a.values(name) != b.values(name)) where.push_back("other frequencies: the tensors \"rope.inv_freq\" differ");
  } else if (a.has(name) || b.has(name)) {
    result.notes.push_back("tensor \"rope.inv_freq\" is in one of the two traces only");
  }
  const json ours = frequencies_in_metadata(a), theirs = frequencies_in_metadata(b);
  if (!ours.is_null() && !theirs.is_null() && ours != theirs)
    where.push_back("other frequencies: inv_freq of the metadata \"config\" differ");
}

void compare_metadata(const TraceFile& a, const TraceFile& b, VerifyResult& result) {
  for (const char* key : {"weights_sha256", "config", "arithmetic_version", "patch", "ablate"}) {
    const auto ours = a.metadata().find(key), theirs = b.metadata().find(key);
    if (ours == a.metadata().end() || theirs == b.metadata().end()) continue;
    if (ours->second == theirs->second) continue;
    const std::string text = "metadata " + quoted(key) + " differ";
    (std::string(key) == "weights_sha256" ? result.problems : result.notes).push_back(text);
  }
  // Only a trace of sinkref's says so, and only if there is something to say.
  const auto intervened = [](const TraceFile& trace) {
    const auto found = trace.metadata().find("intervene");
    return found == trace.metadata().end() ? std::string("none") : found->second;
  };
  if (a.metadata().count("program") && b.metadata().count("program") && intervened(a) != intervened(b))
    result.notes.push_back("metadata \"intervene\" differ");
}

}  // namespace

VerifyResult verify_traces(const TraceFile& reference, const TraceFile& candidate,
                           const Budget& budget, bool exact) {
  VerifyResult result;
  exact |= budget.empty();
  compare_metadata(reference, candidate, result);
  compare_tokens(reference, candidate, result);
  compare_lengths_and_frequencies(reference, candidate, exact, result);
  const std::vector<double> positions = positions_of(reference);
  if (positions != positions_of(candidate))
    result.problems.push_back("other positions: the traces hold different ones, trace both with one --positions");
  for (const Named& extra : hooks_of(candidate, result.problems))
    if (!reference.has(extra.name))
      result.problems.push_back("extra tensor " + quoted(extra.name) + ": only in " +
                                candidate.path().filename().string());
  for (const Named& named : hooks_of(reference, result.problems)) {
    if (!candidate.has(named.name)) {
      result.problems.push_back("missing tensor " + quoted(named.name) + ": only in " +
                                reference.path().filename().string());
      continue;
    }
    const StoredTensor &a = reference.tensor(named.name), &b = candidate.tensor(named.name);
    const std::optional<Layout> layout = layout_of(named.hook, a.shape);
    const Budget::Entry* entry = budget.find(named.name);
    if (a.shape != b.shape || !layout)
      result.problems.push_back("misshapen tensor " + quoted(named.name) + ": " +
                                shape_text(a.shape) + " and " + shape_text(b.shape));
    else if (exact && dtype_text(a) != dtype_text(b))
      result.problems.push_back("tensor " + quoted(named.name) + ": " + dtype_text(a) + " and " +
                                dtype_text(b) + ": bits of different types cannot be compared");
    else if (!exact && (entry == nullptr || entry->propagated.empty()))
      result.problems.push_back("tensor " + quoted(named.name) + ": the budget file has no entry");
    else
      result.tensors.push_back(compare_tensor(named, a, b, *layout, positions, entry, exact));
  }
  if (result.tensors.empty())
    result.problems.push_back("no tensor could be compared: the traces have none in common");
  for (size_t i = 0; i < result.tensors.size() && !result.first; ++i)
    if (result.tensors[i].tokens_over_local > 0) result.first = i;
  result.agrees = result.problems.empty() && !result.first;
  result.budget = budget;
  return result;
}

}  // namespace sinkref
