// The usual faults of norms, weights and the output, each as a small change of the model or its run.

#include "verify/hypotheses.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

#include "sinkref/layers.h"

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
    const auto scale = [input, eps](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) {
        double sum = 0;
        for (size_t i = 0; i < input->cols; ++i) sum += input->row(r)[i] * input->row(r)[i];
        a.row(r)[0] = std::sqrt(sum / static_cast<double>(input->cols) + eps);
      }
    };
    const auto divide = [input, eps](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) {
        double sum = 0;
        for (size_t i = 0; i < a.width; ++i) sum += input->row(r)[i] * input->row(r)[i];
        for (size_t i = 0; i < a.width; ++i)
          a.row(r)[i] = input->row(r)[i] / std::sqrt(sum / static_cast<double>(a.width) + eps);
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

/// The matrix read as its own transpose; the buffer lives as long as the hypothesis.
StoredMatrix transposed(const StoredMatrix& w, std::vector<std::shared_ptr<std::vector<float>>>& own) {
  own.push_back(std::make_shared<std::vector<float>>(w.rows * w.cols));
  std::vector<float>& values = *own.back();
  for (size_t r = 0; r < w.rows; ++r) {
    const std::vector<float> row = widen_row(w, r);
    for (size_t i = 0; i < w.cols; ++i) values[i * w.rows + r] = row[i];
  }
  return {reinterpret_cast<const std::byte*>(values.data()), DType::F32, w.cols, w.rows, 0};
}

void add_transposed(const Model& model, std::vector<Hypothesis>& all) {
  struct Named {
    const char* name;
    HookPoint point;
    std::vector<StoredMatrix LayerWeights::*> matrices;
  };
  const std::vector<Named> choices = {
      {"q", HookPoint::Q, {&LayerWeights::wq}},
      {"k", HookPoint::K, {&LayerWeights::wk}},
      {"v", HookPoint::V, {&LayerWeights::wv}},
      {"o", HookPoint::AttnOut, {&LayerWeights::wo}},
      {"q and k", HookPoint::Q, {&LayerWeights::wq, &LayerWeights::wk}},
      {"q, k, v and o", HookPoint::Q,
       {&LayerWeights::wq, &LayerWeights::wk, &LayerWeights::wv, &LayerWeights::wo}}};
  for (const Named& choice : choices) {
    const LayerWeights& w = model.layer(0);
    if (std::any_of(choice.matrices.begin(), choice.matrices.end(),
                    [&](auto m) { return (w.*m).rows != (w.*m).cols; }))
      continue;
    Hypothesis h{"qk_rows", std::string("transposed weights of ") + choice.name, choice.point};
    auto own = std::make_shared<std::vector<std::shared_ptr<std::vector<float>>>>();
    h.weights = [own, matrices = choice.matrices](LayerWeights& weights) {
      for (auto m : matrices) weights.*m = transposed(weights.*m, *own);
    };
    all.push_back(std::move(h));
  }
}

/// Rows of q or k in the order of the other RoPE pairing: `to_interleaved` as GGUF stores them.
Hypothesis permuted_rows(size_t head_dim, bool to_interleaved, bool q, bool k) {
  Hypothesis h{"qk_rows",
               std::string("rows of ") + (q && k ? "q and k" : q ? "q" : "k") +
                   (to_interleaved ? " left as GGUF interleaves them (not un-permuted)"
                                   : " un-permuted once too often"),
               q ? HookPoint::Q : HookPoint::K};
  h.before = [=](Hooks<double>& hooks, const Place& place) {
    const auto permute = [=](const Activation<double>& a) {
      std::vector<double> old(a.width);
      for (size_t r = 0; r < a.rows.size(); ++r) {
        std::copy_n(a.row(r), a.width, old.begin());
        for (size_t i = 0; i < a.width; ++i) {
          const size_t other = interleaved_row(i, head_dim);
          if (to_interleaved) a.row(r)[other] = old[i];
          else a.row(r)[i] = old[other];
        }
      }
    };
    if (q) on_blocks(hooks, place, HookPoint::Q, permute);
    if (k) on_blocks(hooks, place, HookPoint::K, permute);
  };
  return h;
}

}  // namespace

void on_blocks(Hooks<double>& hooks, const Place& place, HookPoint point,
               const std::function<void(const Activation<double>&)>& function) {
  for (size_t layer = place.first_block; layer < place.end_block; ++layer)
    if (place.holds(layer)) hooks.add({point, layer}, function);
}

double rounded(double value, NumberType type) {
  const float single = static_cast<float>(value);
  if (type == NumberType::fp32 || !std::isfinite(single)) return static_cast<double>(single);
  const int bits = type == NumberType::fp16 ? 11 : 8, lowest = type == NumberType::fp16 ? -24 : -133;
  int exponent = 0;
  std::frexp(single, &exponent);
  const int last = std::max(exponent - bits, lowest);
  return std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(single), -last)), last);
}

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

void add_weight_faults(const Model& model, std::vector<Hypothesis>& all) {
  const ModelConfig& c = model.config();
  add_transposed(model, all);
  for (bool to_interleaved : {true, false})
    for (const auto& [q, k] : {std::pair(true, true), std::pair(true, false), std::pair(false, true)})
      all.push_back(permuted_rows(c.head_dim, to_interleaved, q, k));
  const auto add = [&](const char* fault, const char* detail, HookPoint first,
                       const std::function<void(LayerWeights&)>& edit) {
    Hypothesis h{fault, detail, first};
    h.weights = edit;
    all.push_back(std::move(h));
  };
  add("gate_up", "gate_proj and up_proj are swapped", HookPoint::Pre, [](LayerWeights& w) {
    std::swap(w.w_gate, w.w_up);
    std::swap(w.b_gate, w.b_up);
  });
  add("kv_swapped", "k_proj and v_proj are swapped", HookPoint::K, [](LayerWeights& w) {
    std::swap(w.wk, w.wv);
    std::swap(w.bk, w.bv);
  });
  if (c.heads == c.kv_heads)
    add("qk_swapped", "q_proj and k_proj are swapped", HookPoint::Q, [](LayerWeights& w) {
      std::swap(w.wq, w.wk);
      std::swap(w.bq, w.bk);
    });
  if (c.attention_bias) {
    add("bias", "the biases of attention are not applied", HookPoint::Q, [](LayerWeights& w) {
      w.bq.clear(), w.bk.clear(), w.bv.clear(), w.bo.clear();
    });
    add("bias", "the biases of q, k and v are not applied", HookPoint::Q,
        [](LayerWeights& w) { w.bq.clear(), w.bk.clear(), w.bv.clear(); });
    add("bias", "the bias of o is not applied", HookPoint::AttnOut,
        [](LayerWeights& w) { w.bo.clear(); });
  }
  if (c.mlp_bias)
    add("bias", "the biases of the MLP are not applied", HookPoint::Pre, [](LayerWeights& w) {
      w.b_gate.clear(), w.b_up.clear(), w.b_down.clear();
    });
}

void add_head_faults(const Model& model, std::vector<Hypothesis>& all) {
  const ModelConfig& c = model.config();
  const double root = std::sqrt(static_cast<double>(c.hidden_size));
  Hypothesis scaled{"embedding_scale", "the embedding is multiplied by sqrt(hidden_size)",
                    HookPoint::Embed};
  scaled.before = [root](Hooks<double>& hooks, const Place&) {
    hooks.add({HookPoint::Embed, 0}, [root](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        for (size_t i = 0; i < a.width; ++i) a.row(r)[i] *= root;
    });
  };
  all.push_back(std::move(scaled));
  Hypothesis centred{"centred_logits",
                     "the logits' mean is taken off (TransformerLens's processing: load without it)",
                     HookPoint::Logits};
  centred.before = [](Hooks<double>& hooks, const Place&) {
    hooks.add({HookPoint::Logits, 0}, [](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) {
        double mean = 0;
        for (size_t i = 0; i < a.width; ++i) mean += a.row(r)[i] / static_cast<double>(a.width);
        for (size_t i = 0; i < a.width; ++i) a.row(r)[i] -= mean;
      }
    });
  };
  all.push_back(std::move(centred));
  if (c.tied_output && !model.checkpoint().has("lm_head.weight")) return;  // its numbers are not ours
  Hypothesis tied{"tied_output",
                  c.tied_output ? "the output is lm_head, where the model ties it to the embedding"
                                : "the output is tied to the embedding, where the model has its lm_head",
                  HookPoint::Logits};
  tied.config = [](ModelConfig& config) { config.tied_output = !config.tied_output; };
  all.push_back(std::move(tied));
}

std::vector<Hypothesis> usual_faults(const Model& model, const Candidate& candidate,
                                     const VerifyOptions& options, Hook first) {
  std::vector<Hypothesis> all;
  add_head_faults(model, all);
  add_norm_faults(model, all);
  add_weight_faults(model, all);
  add_rope_faults(model, candidate, first, all);
  add_attention_faults(model, candidate, options, first, all);
  add_mlp_faults(all);
  add_patch_faults(model, candidate, options, first, all);
  return all;
}

}  // namespace sinkref
