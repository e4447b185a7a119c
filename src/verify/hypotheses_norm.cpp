// The usual faults of RMSNorm: its eps, its weight, its precision, its kind.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include "verify/hypotheses.h"

namespace sinkref {

namespace {

constexpr HookPoint scales[] = {HookPoint::Ln1Scale, HookPoint::Ln2Scale, HookPoint::LnFinalScale};
constexpr HookPoint normalized[] = {HookPoint::Ln1Normalized, HookPoint::Ln2Normalized,
                                    HookPoint::LnFinalNormalized};

/// A function on one or all of a model's norms, with the norm's weight.
using OnNorm = std::function<void(const Activation<double>&, const std::vector<float>& weight)>;

void on_norms(Hooks<double>& hooks, const Place& place, const Model& model, int which,
              const OnNorm& function) {
  for (int i = 0; i < 2; ++i)
    if (which < 0 || which == i)
      on_blocks(hooks, place, normalized[i], [&model, i, function](const Activation<double>& a) {
        const LayerWeights& w = model.layer(a.hook.layer);
        function(a, i == 0 ? w.ln1 : w.ln2);
      });
  if ((which < 0 || which == 2) && !place.only)
    hooks.add({HookPoint::LnFinalNormalized, 0}, [&model, function](const Activation<double>& a) {
      function(a, model.final_norm());
    });
}

/// A change of what the next step gets: normalized · weight becomes `wanted`(normalized, weight).
Hypothesis::AddHooks norm_output(const Model& model, int which,
                                 const std::function<double(double, double)>& wanted) {
  return [&model, which, wanted](Hooks<double>& hooks, const Place& place) {
    on_norms(hooks, place, model, which,
             [wanted](const Activation<double>& a, const std::vector<float>& weight) {
               for (size_t r = 0; r < a.rows.size(); ++r)
                 for (size_t i = 0; i < a.width; ++i) {
                   const double w = static_cast<double>(weight[i]);
                   if (w != 0) a.row(r)[i] = wanted(a.row(r)[i], w) / w;
                 }
             });
  };
}

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

void add_norm_precision(const Model& model, std::vector<Hypothesis>& all) {
  for (NumberType type : {NumberType::fp16, NumberType::bf16}) {
    const std::string name = number_type_name(type);
    const auto add = [&](const std::string& what, const std::function<double(double, double)>& f) {
      Hypothesis h{"norm_precision", "RMSNorm in " + name + ": " + what, HookPoint::Ln1Normalized};
      h.after = norm_output(model, -1, f);
      h.rounds = true;
      all.push_back(std::move(h));
    };
    add("its quotient is rounded before the weight",
        [type](double x, double w) { return rounded(x, type) * w; });
    add("its output is rounded", [type](double x, double w) {
      return rounded(static_cast<float>(x) * static_cast<float>(w), type);
    });
    add("quotient and output are rounded",
        [type](double x, double w) { return rounded(rounded(x, type) * w, type); });
    add("its quotient and weight are rounded",
        [type](double x, double w) { return rounded(x, type) * rounded(w, type); });
    add("quotient, weight and output are rounded", [type](double x, double w) {
      return rounded(rounded(x, type) * rounded(w, type), type);
    });
  }
}

/// LayerNorm: the mean is taken off first. The input is the residual as the run goes on with it.
Hypothesis layer_norm(const Model& model) {
  Hypothesis h{"norm_kind", "LayerNorm in the place of RMSNorm: the mean is taken off",
               HookPoint::Ln1Scale};
  const double eps = model.config().rms_norm_eps;
  auto input = std::make_shared<Matrix<double>>();
  h.after = [input](Hooks<double>& hooks, const Place& place) {
    const auto keep = [input](const Activation<double>& a) {
      *input = Matrix<double>(a.rows.size(), a.width);
      for (size_t r = 0; r < a.rows.size(); ++r) std::copy_n(a.row(r), a.width, input->row(r));
      for (size_t r = 0; r < a.rows.size(); ++r) {
        double mean = 0;
        for (size_t i = 0; i < a.width; ++i) mean += a.row(r)[i] / static_cast<double>(a.width);
        for (size_t i = 0; i < a.width; ++i) input->row(r)[i] -= mean;
      }
    };
    for (HookPoint point : {HookPoint::ResidPre, HookPoint::ResidMid, HookPoint::ResidPost})
      on_blocks(hooks, place, point, keep);
  };
  h.before = [input, eps](Hooks<double>& hooks, const Place& place) {
    const auto deviation = [input, eps](size_t r) {
      double sum = 0;
      for (size_t i = 0; i < input->cols; ++i) sum += input->row(r)[i] * input->row(r)[i];
      return std::sqrt(sum / static_cast<double>(input->cols) + eps);
    };
    const auto scale = [deviation](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) a.row(r)[0] = deviation(r);
    };
    const auto divide = [input, deviation](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) {
        const double by = deviation(r);
        for (size_t i = 0; i < a.width; ++i) a.row(r)[i] = input->row(r)[i] / by;
      }
    };
    for (HookPoint point : scales) {
      if (point == HookPoint::LnFinalScale) hooks.add({point, 0}, scale);
      else on_blocks(hooks, place, point, scale);
    }
    for (HookPoint point : normalized) {
      if (point == HookPoint::LnFinalNormalized) hooks.add({point, 0}, divide);
      else on_blocks(hooks, place, point, divide);
    }
  };
  return h;
}

}  // namespace

void add_norm_faults(const Model& model, std::vector<Hypothesis>& all) {
  const double eps = model.config().rms_norm_eps;
  for (double other : {0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2}) {
    if (std::fabs(other - eps) < 1e-3 * eps) continue;
    Hypothesis h{"norm_eps", "rms_norm_eps is " + shown(other) + ", the model's is " + shown(eps),
                 HookPoint::Ln1Scale};
    h.config = [other](ModelConfig& c) { c.rms_norm_eps = other; };
    all.push_back(std::move(h));
  }
  constexpr const char* which[] = {"attention's", "the MLP's", "the final", "every"};
  for (int i : {3, 0, 1, 2}) {
    const std::string name = which[i];
    const HookPoint first = i == 3 ? HookPoint::Ln1Normalized : normalized[i];
    const int index = i == 3 ? -1 : i;
    const auto add = [&](const std::string& detail, const std::function<double(double, double)>& f) {
      Hypothesis h{"norm_weight", name + " norm's weight " + detail, first};
      h.after = norm_output(model, index, f);
      all.push_back(std::move(h));
    };
    add("is not applied (taken as folded into the matrices)", [](double x, double) { return x; });
    add("is applied twice (folded into the matrices, and again)",
        [](double x, double w) { return x * w * w; });
    add("is applied as 1 + w", [](double x, double w) { return x * (1 + w); });
  }
  Hypothesis named{"norm_weight", "hook_normalized was captured after the weight (nothing else is wrong)",
                   HookPoint::Ln1Normalized};
  named.before = norm_output(model, -1, [](double x, double w) { return x * w * w; });
  named.after = norm_output(model, -1, [](double x, double) { return x; });
  all.push_back(std::move(named));
  add_norm_precision(model, all);
  all.push_back(layer_norm(model));
}

}  // namespace sinkref
