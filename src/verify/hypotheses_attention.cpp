// The usual faults of attention (beside RoPE), of the MLP and of a patch.

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

/// Gate and up as the run goes on with them, for what comes after.
struct GateUp {
  Matrix<double> gate, up;
};

Hypothesis activated(const std::string& fault, const std::string& detail,
                     const std::function<double(double, double)>& function) {
  Hypothesis h{fault, detail, HookPoint::Post};
  auto kept = std::make_shared<GateUp>();
  h.after = [kept](Hooks<double>& hooks, const Place& place) {
    const auto keep = [kept](Matrix<double> GateUp::*member) {
      return [kept, member](const Activation<double>& a) {
        (*kept).*member = Matrix<double>(a.rows.size(), a.width);
        for (size_t r = 0; r < a.rows.size(); ++r)
          std::copy_n(a.row(r), a.width, ((*kept).*member).row(r));
      };
    };
    on_blocks(hooks, place, HookPoint::Pre, keep(&GateUp::gate));
    on_blocks(hooks, place, HookPoint::PreLinear, keep(&GateUp::up));
  };
  h.before = [kept, function](Hooks<double>& hooks, const Place& place) {
    on_blocks(hooks, place, HookPoint::Post, [kept, function](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        for (size_t i = 0; i < a.width; ++i)
          a.row(r)[i] = function(kept->gate.row(r)[i], kept->up.row(r)[i]);
    });
  };
  return h;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// How a wrong patch may treat a neuron.
struct Pinning {
  HookPoint point = HookPoint::PreLinear;
  size_t source = 1;     ///< position the value is taken from
  size_t from = 1;       ///< first position that is pinned
  bool zero = false;     ///< to 0 instead
};

Hypothesis pinned(const std::vector<Neurons>& neurons, const std::string& detail, Pinning how) {
  Hypothesis h{"patch", detail, how.point};
  h.before = [neurons, how](Hooks<double>& hooks, const Place&) {
    for (const Neurons& layer : neurons) {
      auto value = std::make_shared<std::vector<double>>();
      hooks.add({how.point, layer.layer}, [layer, how, value](const Activation<double>& a) {
        for (size_t r = 0; r < a.rows.size(); ++r)
          if (a.rows[r].position == how.source) {
            value->clear();
            for (size_t n : layer.indices) value->push_back(a.row(r)[n]);
          }
        if (value->empty() && !how.zero) return;
        for (size_t r = 0; r < a.rows.size(); ++r)
          if (a.rows[r].position >= how.from)
            for (size_t i = 0; i < layer.indices.size(); ++i)
              a.row(r)[layer.indices[i]] = how.zero ? 0 : (*value)[i];
      });
    }
  };
  return h;
}

std::vector<Neurons> moved(std::vector<Neurons> neurons, long layers, long indices,
                           const ModelConfig& c) {
  for (Neurons& n : neurons) {
    const long layer = static_cast<long>(n.layer) + layers;
    if (layer < 0 || layer >= static_cast<long>(c.layers)) return {};
    n.layer = static_cast<size_t>(layer);
    for (size_t& index : n.indices) {
      const long other = static_cast<long>(index) + indices;
      if (other < 0 || other >= static_cast<long>(c.intermediate_size)) return {};
      index = static_cast<size_t>(other);
    }
  }
  return neurons;
}

void add_pinnings(const std::vector<Neurons>& neurons, const std::string& where,
                  std::vector<Hypothesis>& all) {
  const auto add = [&](const std::string& detail, Pinning how) {
    all.push_back(pinned(neurons, where + " " + neurons_text(neurons) + detail, how));
  };
  add("", {});
  add(", pinned at position 0 too", {HookPoint::PreLinear, 1, 0});
  add(", with the value of position 0", {HookPoint::PreLinear, 0, 0});
  add(", with the value of position 2", {HookPoint::PreLinear, 2, 2});
  add(", from position 2 on only", {HookPoint::PreLinear, 1, 2});
  add(", on the gate instead of up", {HookPoint::Pre, 1, 1});
  add(", on silu(gate)·up instead of up", {HookPoint::Post, 1, 1});
  add(", set to 0 instead", {HookPoint::PreLinear, 1, 1, true});
}

/// Columns of hook `first` in which their rows, but for the first, are one value each.
std::vector<size_t> constant_columns(const ModelConfig& c, const Candidate& candidate, Hook first) {
  const size_t length = candidate.tokens()[0].size();
  if (length < 4 || !candidate.has(first)) return {};
  std::vector<double> reference(c.intermediate_size), row(c.intermediate_size);
  candidate.row(first, 0, length - 1, reference.data());
  std::vector<size_t> columns;
  std::vector<bool> constant(c.intermediate_size, true);
  for (size_t p = 2; p < length; ++p) {
    candidate.row(first, 0, p, row.data());
    for (size_t i = 0; i < row.size(); ++i) constant[i] = constant[i] && row[i] == reference[i];
  }
  for (size_t i = 0; i < constant.size(); ++i)
    if (constant[i]) columns.push_back(i);
  // A run of one token may be constant all over: that is no patch.
  return columns.size() > 64 ? std::vector<size_t>() : columns;
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
  const size_t layer = first.point <= HookPoint::ResidPost ? first.layer : 0;
  add_windows(c, candidate, layer, all);
}

void add_mlp_faults(std::vector<Hypothesis>& all) {
  const auto add = [&](const char* fault, const char* detail,
                       const std::function<double(double, double)>& f) {
    all.push_back(activated(fault, detail, f));
  };
  add("activation", "gelu (tanh) in the place of silu", [](double g, double u) {
    return 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
  });
  add("activation", "gelu (erf) in the place of silu",
      [](double g, double u) { return 0.5 * g * (1 + std::erf(g / std::sqrt(2.0))) * u; });
  add("activation", "gelu (sigmoid) in the place of silu",
      [](double g, double u) { return g * sigmoid(1.702 * g) * u; });
  add("activation", "relu in the place of silu",
      [](double g, double u) { return std::max(g, 0.0) * u; });
  add("activation", "sigmoid in the place of silu",
      [](double g, double u) { return sigmoid(g) * u; });
  add("activation", "no activation in the place of silu", [](double g, double u) { return g * u; });
  add("gate_up", "silu is applied to up instead of gate",
      [](double g, double u) { return u * sigmoid(u) * g; });
}

void add_patch_faults(const Model& model, const Candidate& candidate, const VerifyOptions& options,
                      Hook first, std::vector<Hypothesis>& all) {
  const ModelConfig& c = model.config();
  if (!options.patch.empty()) {
    all.push_back(pinned({}, "the patch is not applied", {}));
    add_pinnings(options.patch, "the patch of", all);
    all.erase(all.end() - 8);  // the right patch is no fault
    for (long by : {1L, -1L}) {
      for (const auto& [neurons, what] :
           {std::pair(moved(options.patch, by, 0, c), "layer"),
            std::pair(moved(options.patch, 0, by, c), "neuron")})
        if (!neurons.empty())
          all.push_back(pinned(neurons, std::string("the patch is at the wrong ") + what + ", " +
                                            neurons_text(neurons) + " instead of " +
                                            neurons_text(options.patch),
                               {}));
    }
  }
  if (first.point < HookPoint::Pre || first.point > HookPoint::Post) return;
  const std::vector<size_t> columns = constant_columns(c, candidate, first);
  if (columns.empty()) return;
  const std::vector<Neurons> found = {{first.layer, columns}};
  if (neurons_text(found) == neurons_text(options.patch)) return;
  add_pinnings(found,
               options.patch.empty() ? "a patch is applied to"
                                     : "the patch is at the wrong place, " +
                                           neurons_text(options.patch) + " became",
               all);
}

}  // namespace sinkref
