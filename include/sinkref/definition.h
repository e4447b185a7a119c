#pragma once

// The model, as a paper would print it: one sequence, plain loops. With N = float (`--kernel spec`) this text
// defines every bit that sinkref gives; everything faster is tested to equal it with ==. With N = double it is
// the truth that errors are measured against; with balls of real numbers, that truth proved.
// p position, d model width, H query heads, K key/value heads, h head size, m MLP width, V vocabulary.
// "HF" is transformers' models/llama/modeling_llama.py. number.h has the sums, exp and the visible keys.

#include <span>

#include "sinkref/hooks.h"
#include "sinkref/model.h"
#include "sinkref/number.h"

namespace sinkref::definition {

/// Shows each activation under its hook's name; what an observer changes is what the model goes on with.
template <class N>
struct Observe {
  std::function<void(Hook hook, size_t head, Matrix<N>& values)> observer;
  Matrix<N> operator()(HookPoint point, size_t layer, Matrix<N> values, size_t head = 0) const {
    if (observer) observer({point, layer}, head, values);
    return values;
  }
};

/// Rotated keys and values of all positions so far, per layer (p, K·h): what later positions read.
template <class N>
struct Past {
  explicit Past(const ModelConfig& c) : k(c.layers), v(c.layers) {}
  size_t positions = 0;
  std::vector<Matrix<N>> k, v;
};

/// y = x Wᵀ + b.   x (p, in), W (out, in), b (out) or none: y (p, out).   HF: nn.Linear
template <class N>
Matrix<N> linear(const Matrix<N>& x, const StoredMatrix& w, std::span<const float> b) {
  Matrix<N> y(x.rows, w.rows);
  for (size_t n = 0; n < w.rows; ++n) {
    const std::vector<float> weights = widen_row(w, n);
    for (size_t p = 0; p < x.rows; ++p) {
      y[p][n] = chain<N>(0, w.cols, [&](size_t i) { return x[p][i]; }, [&](size_t i) { return N(weights[i]); });
      if (!b.empty()) y[p][n] = y[p][n] + N(b[n]);
    }
  }
  return y;
}

/// a + b, element by element: how attention and MLP write to the residual stream.
template <class N>
Matrix<N> sum(Matrix<N> a, const Matrix<N>& b) {
  for (size_t i = 0; i < a.values.size(); ++i) a.values[i] = a.values[i] + b.values[i];
  return a;
}

/// RMSNorm(x)ᵢ = xᵢ / √(1/d Σⱼ xⱼ² + ε) · weightᵢ.   x (p, d).   HF: LlamaRMSNorm; Zhang & Sennrich 2019
template <class N>
Matrix<N> rms_norm(const Matrix<N>& x, const std::vector<float>& weight, double eps, HookPoint scale_hook,
                   HookPoint normalized_hook, size_t layer, const Observe<N>& see) {
  using A = Number<N>;
  Matrix<N> scale(x.rows, 1), y(x.rows, x.cols);
  each_row<N>(x.rows, [&](size_t p) {
    const auto squares = lane_sum<N>(0, x.cols, [&](size_t i) { return A::wide(x[p][i]) * A::wide(x[p][i]); });
    scale[p][0] = A::narrow(A::sqrt(squares / static_cast<double>(x.cols) + eps));
  });
  scale = see(scale_hook, layer, scale);
  each_row<N>(x.rows, [&](size_t p) { for (size_t i = 0; i < x.cols; ++i) y[p][i] = x[p][i] / scale[p][0]; });
  y = see(normalized_hook, layer, y);
  each_row<N>(x.rows, [&](size_t p) { for (size_t i = 0; i < x.cols; ++i) y[p][i] = y[p][i] * N(weight[i]); });
  return y;
}

/// RoPE turns each pair (xᵢ, xᵢ₊ₕ/₂) of a head by the angle position·inv_freqᵢ.   x (p, heads·h).
/// HF: apply_rotary_pos_emb, rotate_half; Su et al. 2021. The angle's cos and sin are fp32 for every N.
template <class N>
Matrix<N> rope(Matrix<N> x, size_t first_position, std::span<const float> inv_freq) {
  const size_t half = inv_freq.size();
  each_row<N>(x.rows, [&](size_t p) {
    for (size_t i = 0; i < half; ++i) {
      const CosSin turn = cos_sin_spec(static_cast<float>(first_position + p) * inv_freq[i]);
      for (size_t head = 0; head < x.cols; head += 2 * half) {
        const N a = x[p][head + i], b = x[p][head + half + i];
        x[p][head + i] = a * N(turn.cos) - b * N(turn.sin);
        x[p][head + half + i] = b * N(turn.cos) + a * N(turn.sin);
      }
    }
  });
  return x;
}

/// softmax(s)ⱼ = eˢʲ / Σ eˢ over the visible keys; softmax₁'s sum has one more key, of score 0.
template <class N>
void softmax(N* s, size_t keys, Visible seen, Softmax variant) {
  N largest = variant == Softmax::one ? N(0) : N(masked);
  for (size_t j = seen.begin; j < seen.end; ++j) largest = largest < s[j] ? centre(s[j]) : largest;
  for (size_t j = 0; j < keys; ++j) s[j] = seen.holds(j) ? Number<N>::exp(s[j] - largest) : N(0);
  auto total = lane_sum<N>(seen.begin, seen.end, [&](size_t j) { return Number<N>::wide(s[j]); });
  if (variant == Softmax::one) total = total + Number<N>::wide(Number<N>::exp(N(0) - largest));
  const N inverse = Number<N>::narrow(1.0 / total);
  for (size_t j = 0; j < keys; ++j) s[j] = s[j] * inverse;
}

/// q kᵀ · scale of one head, which is h columns of q (p, H·h) and of k (keys, K·h): (p, keys), -∞ where unseen.
template <class N>
Matrix<N> scores(const Matrix<N>& q, size_t at_q, const Matrix<N>& k, size_t at_k, N scale, size_t h, Mask seen) {
  Matrix<N> s(q.rows, k.rows, N(masked));
  for (size_t p = 0; p < q.rows; ++p)
    for (size_t j = seen(p).begin; j < seen(p).end; ++j)
      s[p][j] = scale * chain<N>(0, h, [&](size_t i) { return q[p][at_q + i]; },
                                 [&](size_t i) { return k[j][at_k + i]; });
  return s;
}

/// pattern · v of one head, which is h columns of v (keys, K·h) and of z (p, H·h).
template <class N>
void weigh(const Matrix<N>& pattern, const Matrix<N>& v, size_t at_v, size_t h, Mask seen, Matrix<N>& z, size_t at_z) {
  for (size_t p = 0; p < z.rows; ++p)
    for (size_t i = 0; i < h; ++i)
      z[p][at_z + i] = chain<N>(seen(p).begin, seen(p).end, [&](size_t j) { return pattern[p][j]; },
                                [&](size_t j) { return v[j][at_v + i]; });
}

/// attn_out = W_O z,  z = softmax(q kᵀ / √h) v  head by head; query head i reads key/value head i / (H/K).
/// x (p, d): attn_out (p, d).   HF: LlamaAttention, eager_attention_forward; Vaswani et al. 2017
template <class N>
Matrix<N> attention(const Model& model, size_t layer, const Matrix<N>& x, Past<N>& past, Softmax variant,
                    const Observe<N>& see) {
  const ModelConfig& c = model.config();
  const LayerWeights& w = model.layer(layer);
  const Matrix<N> q = see(HookPoint::Q, layer, linear(x, w.wq, w.bq));  // (p, H·h)
  const Matrix<N> k = see(HookPoint::K, layer, linear(x, w.wk, w.bk));  // (p, K·h)
  const Matrix<N> v = see(HookPoint::V, layer, linear(x, w.wv, w.bv));  // (p, K·h)
  const Matrix<N> rot_q = see(HookPoint::RotQ, layer, rope(q, past.positions, model.inv_freq()));
  const Matrix<N> rot_k = see(HookPoint::RotK, layer, rope(k, past.positions, model.inv_freq()));
  const Matrix<N>&keys = past.k[layer].append(rot_k), &values = past.v[layer].append(v);  // (positions, K·h)
  const size_t h = c.head_dim;
  const N scale = Number<N>::narrow(1.0 / Number<N>::sqrt(static_cast<double>(h)));
  const Mask seen = {past.positions, c.sliding_window};
  Matrix<N> z(x.rows, c.heads * h);  // (p, H·h)
  for (size_t head = 0; head < c.heads; ++head) {
    const size_t at_q = head * h, at_kv = head / (c.heads / c.kv_heads) * h;
    Matrix<N> pattern = see(HookPoint::AttnScores, layer, scores(rot_q, at_q, keys, at_kv, scale, h, seen), head);
    each_row<N>(x.rows, [&](size_t p) { softmax(pattern[p], keys.rows, seen(p), variant); });
    pattern = see(HookPoint::Pattern, layer, pattern, head);
    weigh(pattern, values, at_kv, h, seen, z, at_q);
  }
  return see(HookPoint::AttnOut, layer, linear(see(HookPoint::Z, layer, z), w.wo, w.bo));
}

/// silu(g) = g / (1 + e⁻ᵍ)
template <class N>
N silu(N g) { return g / (N(1) + Number<N>::exp(-g)); }

/// mlp_out = W_down (silu(W_gate x) ⊙ W_up x).   x (p, d): mlp_out (p, d).
/// The m values in the middle are the neurons.   HF: LlamaMLP; SwiGLU, Shazeer 2020
template <class N>
Matrix<N> mlp(const LayerWeights& w, size_t layer, const Matrix<N>& x, const Observe<N>& see) {
  const Matrix<N> gate = see(HookPoint::Pre, layer, linear(x, w.w_gate, w.b_gate));  // (p, m)
  const Matrix<N> up = see(HookPoint::PreLinear, layer, linear(x, w.w_up, w.b_up));  // (p, m)
  Matrix<N> post(x.rows, gate.cols);
  each_row<N>(x.rows, [&](size_t p) { for (size_t i = 0; i < post.cols; ++i) post[p][i] = silu(gate[p][i]) * up[p][i]; });
  return see(HookPoint::MlpOut, layer, linear(see(HookPoint::Post, layer, post), w.w_down, w.b_down));
}

/// The residual stream of the tokens, which follow those of `past`, through blocks [first, end); their
/// logits (p, V) where `end` is the last and `logits` is asked for.   HF: LlamaForCausalLM
template <class N>
Matrix<N> forward(const Model& model, std::span<const int> tokens, Past<N>& past, size_t first, size_t end,
                  bool logits, Softmax variant, const Observe<N>& see) {
  const ModelConfig& c = model.config();
  Matrix<N> resid(tokens.size(), c.hidden_size);  // (p, d)
  for (size_t p = 0; p < tokens.size(); ++p) {
    const std::vector<float> row = widen_row(model.embedding(), static_cast<size_t>(tokens[p]));
    std::copy(row.begin(), row.end(), resid[p]);
  }
  resid = see(HookPoint::Embed, 0, resid);
  for (size_t layer = first; layer < end; ++layer) {
    const LayerWeights& w = model.layer(layer);
    const Matrix<N> resid_pre = see(HookPoint::ResidPre, layer, resid);
    const Matrix<N> ln1 = rms_norm(resid_pre, w.ln1, c.rms_norm_eps, HookPoint::Ln1Scale,
                                   HookPoint::Ln1Normalized, layer, see);
    const Matrix<N> attn_out = attention(model, layer, ln1, past, variant, see);
    const Matrix<N> resid_mid = see(HookPoint::ResidMid, layer, sum(resid_pre, attn_out));
    const Matrix<N> ln2 = rms_norm(resid_mid, w.ln2, c.rms_norm_eps, HookPoint::Ln2Scale,
                                   HookPoint::Ln2Normalized, layer, see);
    const Matrix<N> mlp_out = mlp(w, layer, ln2, see);
    resid = see(HookPoint::ResidPost, layer, sum(resid_mid, mlp_out));
  }
  past.positions += tokens.size();
  if (end < c.layers) return {};
  const Matrix<N> final_norm = rms_norm(resid, model.final_norm(), c.rms_norm_eps, HookPoint::LnFinalScale,
                                        HookPoint::LnFinalNormalized, 0, see);
  if (!logits) return {};
  return see(HookPoint::Logits, 0, linear(final_norm, model.lm_head(), {}));
}
extern template Matrix<float> forward(const Model&, std::span<const int>, Past<float>&, size_t, size_t, bool, Softmax,
                                      const Observe<float>&);
extern template Matrix<double> forward(const Model&, std::span<const int>, Past<double>&, size_t, size_t, bool, Softmax,
                                       const Observe<double>&);
}  // namespace sinkref::definition
