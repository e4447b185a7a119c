// The usual faults of the MLP and of a patch on its neurons.

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <set>

#include "verify/hypotheses.h"

namespace sinkref {

namespace {

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

/// The ways of pinning these neurons that are not the paper's.
void add_wrong_pinnings(const std::vector<Neurons>& neurons, const std::string& where,
                        std::vector<Hypothesis>& all) {
  const auto add = [&](const std::string& detail, Pinning how) {
    all.push_back(pinned(neurons, where + " " + neurons_text(neurons) + detail, how));
  };
  add(", pinned at position 0 too", {HookPoint::PreLinear, 1, 0});
  add(", with the value of position 0", {HookPoint::PreLinear, 0, 0});
  add(", with the value of position 2", {HookPoint::PreLinear, 2, 2});
  add(", from position 2 on only", {HookPoint::PreLinear, 1, 2});
  add(", on the gate instead of up", {HookPoint::Pre, 1, 1});
  add(", on silu(gate)·up instead of up", {HookPoint::Post, 1, 1});
  add(", set to 0 instead", {HookPoint::PreLinear, 1, 1, true});
}

/// Columns of hook `first` in which their rows, but for positions 0 and 1, are one value each.
std::vector<size_t> constant_columns(const ModelConfig& c, const Candidate& candidate, Hook first) {
  std::vector<size_t> held;
  for (size_t p = 2; p < candidate.tokens()[0].size(); ++p)
    if (candidate.holds(p)) held.push_back(p);
  if (held.size() < 2 || !candidate.has(first)) return {};
  std::vector<double> reference(c.intermediate_size), row(c.intermediate_size);
  candidate.row(first, 0, held.back(), reference.data());
  std::vector<size_t> columns;
  std::vector<bool> constant(c.intermediate_size, true);
  for (const size_t p : held) {
    candidate.row(first, 0, p, row.data());
    for (size_t i = 0; i < row.size(); ++i) constant[i] = constant[i] && row[i] == reference[i];
  }
  for (size_t i = 0; i < constant.size(); ++i)
    if (constant[i]) columns.push_back(i);
  // A run of one token may be constant all over: that is no patch.
  return columns.size() > 64 ? std::vector<size_t>() : columns;
}

}  // namespace

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
    add_wrong_pinnings(options.patch, "the patch of", all);
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
  const std::string where = options.patch.empty() ? "a patch is applied to"
                                                  : "the patch is at the wrong place, " +
                                                        neurons_text(options.patch) + " became";
  all.push_back(pinned(found, where + " " + neurons_text(found), {}));
  add_wrong_pinnings(found, where, all);
}

}  // namespace sinkref
