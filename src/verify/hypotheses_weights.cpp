// The usual faults of loading weights: transposed, permuted, swapped or left out.

#include <algorithm>
#include <memory>

#include "arithmetic/layers.h"
#include "verify/hypotheses.h"

namespace sinkref {

namespace {

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

}  // namespace sinkref
