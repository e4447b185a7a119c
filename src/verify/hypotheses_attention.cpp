// The usual faults of attention: its scale, its head mapping, its cache, its window, its softmax.

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <set>

#include "verify/hypotheses.h"

namespace sinkref {

namespace {

Hypothesis scaled_scores(const std::string& detail, double factor) {
  Hypothesis h{"attention_scale", detail, HookPoint::AttnScores};
  h.slack = std::max(1.0, factor);
  h.before = [factor](Hooks<double>& hooks, const Place& place) {
    on_blocks(hooks, place, HookPoint::AttnScores, [factor](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        for (size_t k = 0; k < a.width; ++k) a.row(r)[k] *= factor;
    });
  };
  return h;
}

/// Query head i reads key/value head i mod K. The run's slot j reads j / (H/K): heads are moved to
/// slots that read what they should, and back.
Hypothesis interleaved_groups(const ModelConfig& c) {
  Hypothesis h{"gqa_mapping", "query head i reads key/value head i mod K instead of i / (H/K)",
               HookPoint::AttnScores};
  const size_t group = c.heads / c.kv_heads, size = c.head_dim;
  for (size_t slot = 0; slot < c.heads; ++slot)
    h.head_of.push_back(slot % group * c.kv_heads + slot / group);
  const auto move = [size, head_of = h.head_of](bool to_slots) {
    return [=](const Activation<double>& a) {
      std::vector<double> old(a.width);
      for (size_t r = 0; r < a.rows.size(); ++r) {
        std::copy_n(a.row(r), a.width, old.begin());
        for (size_t slot = 0; slot < head_of.size(); ++slot) {
          const size_t from = to_slots ? head_of[slot] : slot, to = to_slots ? slot : head_of[slot];
          std::copy_n(&old[from * size], size, a.row(r) + to * size);
        }
      }
    };
  };
  h.after = [move](Hooks<double>& hooks, const Place& place) {
    on_blocks(hooks, place, HookPoint::RotQ, move(true));
  };
  h.before = [move](Hooks<double>& hooks, const Place& place) {
    on_blocks(hooks, place, HookPoint::Z, move(false));
  };
  return h;
}

Hypothesis rounded_cache(NumberType type, bool operands) {
  Hypothesis h{"kv_cache", std::string("keys and values are kept as ") + number_type_name(type) +
                               (operands ? ", and so is what meets them in a product" : ""),
               HookPoint::AttnScores};
  h.rounds = true;
  h.after = [type, operands](Hooks<double>& hooks, const Place& place) {
    const auto round = [type](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        for (size_t i = 0; i < a.width; ++i) a.row(r)[i] = rounded(a.row(r)[i], type);
    };
    on_blocks(hooks, place, HookPoint::RotK, round);
    on_blocks(hooks, place, HookPoint::V, round);
    if (!operands) return;
    on_blocks(hooks, place, HookPoint::RotQ, round);
    on_blocks(hooks, place, HookPoint::Pattern, round);
  };
  return h;
}

/// Keys that the candidate's last query of a block sees, if it shows that.
std::optional<size_t> visible_keys(const Candidate& candidate, size_t layer) {
  const size_t length = candidate.tokens()[0].size();
  if (!candidate.holds(length - 1)) return std::nullopt;
  std::vector<double> row(length);
  for (HookPoint point : {HookPoint::AttnScores, HookPoint::Pattern}) {
    if (!candidate.has({point, layer})) continue;
    const double unseen =
        point == HookPoint::Pattern ? 0 : -std::numeric_limits<double>::infinity();
    candidate.attention_row({point, layer}, 0, 0, length - 1, length, row.data());
    return static_cast<size_t>(
        std::count_if(row.begin(), row.end(), [&](double p) { return p != unseen; }));
  }
  return std::nullopt;
}

void add_windows(const ModelConfig& c, const Candidate& candidate, size_t layer,
                 std::vector<Hypothesis>& all) {
  const auto add = [&](std::optional<size_t> window, const std::string& detail) {
    if (window == c.sliding_window) return;
    Hypothesis h{"sliding_window", detail, HookPoint::AttnScores};
    h.config = [window](ModelConfig& config) { config.sliding_window = window; };
    all.push_back(std::move(h));
  };
  const std::string model_has =
      c.sliding_window ? ", the model's is " + std::to_string(*c.sliding_window) : ", the model has none";
  std::set<size_t> windows;
  if (c.sliding_window) {
    add(std::nullopt, "the sliding window is left out" + model_has);
    windows = {*c.sliding_window + 1, *c.sliding_window - 1};
  }
  const size_t length = candidate.tokens()[0].size();
  const std::optional<size_t> seen = visible_keys(candidate, layer);
  if (seen && *seen < length) windows.insert(*seen);
  for (size_t window : windows)
    if (window > 0 && window < length)
      add(window, "the sliding window is " + std::to_string(window) + model_has);
}

}  // namespace

void add_attention_faults(const Model& model, const Candidate& candidate,
                          const VerifyOptions& options, Hook first, std::vector<Hypothesis>& all) {
  const ModelConfig& c = model.config();
  const double root = std::sqrt(static_cast<double>(c.head_dim));
  all.push_back(scaled_scores("scores are not divided by sqrt(head_dim)", root));
  all.push_back(scaled_scores("scores are divided by head_dim, not by its root", 1 / root));
  const double shared = static_cast<double>(c.hidden_size) / static_cast<double>(c.heads);
  if (shared != static_cast<double>(c.head_dim))
    all.push_back(scaled_scores("scores are divided by sqrt(hidden_size / heads), not sqrt(head_dim)",
                                root / std::sqrt(shared)));
  all.push_back(scaled_scores("scores are divided by sqrt(hidden_size), not sqrt(head_dim)",
                              root / std::sqrt(static_cast<double>(c.hidden_size))));
  if (c.kv_heads > 1 && c.kv_heads < c.heads) all.push_back(interleaved_groups(c));
  for (NumberType type : {NumberType::fp16, NumberType::bf16})
    for (bool operands : {false, true}) all.push_back(rounded_cache(type, operands));
  Hypothesis other{"softmax_one", options.softmax == Softmax::one
                                      ? "softmax is the standard one, not softmax_1"
                                      : "softmax_1: the denominator has 1 added",
                   HookPoint::Pattern};
  other.softmax = options.softmax == Softmax::one ? Softmax::standard : Softmax::one;
  all.push_back(std::move(other));
  const size_t layer = !is_after_blocks(first.point) ? first.layer : 0;
  add_windows(c, candidate, layer, all);
}

}  // namespace sinkref
