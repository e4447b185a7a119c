// The fast forward pass: the text of definition.h with the rows of many sequences side by side. Read
// step() first.

#include "sinkref/forward.h"

#include <algorithm>

#include "arithmetic/layers.h"
#include "base/threads.h"
#include "model/not_finite.h"
#include "sinkref/error.h"

namespace sinkref {

void check_tokens(const Model& model, const std::vector<int>& tokens, size_t before) {
  const ModelConfig& c = model.config();
  const size_t length = before + tokens.size();
  if (tokens.empty()) refuse("the prompt", "is empty, expected at least one token", "give a text or ids");
  if (length > c.max_positions)
    refuse(model.checkpoint().path().string(),
           "the input is " + std::to_string(length) + " tokens long, expected at most the model's limit of " +
               std::to_string(c.max_positions),
           "shorten it");
  for (int token : tokens)
    if (token < 0 || static_cast<size_t>(token) >= c.vocab_size)
      refuse(model.checkpoint().path().string(),
             "token id " + std::to_string(token) + " is not in the vocabulary, expected 0 to " +
                 std::to_string(c.vocab_size - 1),
             "sinkref tokenize shows the ids of a text");
}

template <class T>
void Forward<T>::step(std::vector<Sequence<T>>& sequences, const Pass& pass, Hooks<T>& hooks,
                      Matrix<T>& logits) {
  rows_ = pass.rows;
  std::vector<size_t> positions;
  for (const Row& row : rows_) positions.push_back(row.position);
  rope_table(positions, model_.inv_freq(), of_.cos, of_.sin);
  Matrix<T>& resid = embed(pass.tokens);
  see(HookPoint::Embed, 0, resid, hooks);
  for (size_t layer = extent_.first_block; layer < end_block(); ++layer) {
    const LayerWeights& w = model_.layer(layer);
    see(HookPoint::ResidPre, layer, resid, hooks);
    const Matrix<T>& ln1 = norm(resid, w.ln1, HookPoint::Ln1Scale, HookPoint::Ln1Normalized, layer, hooks);
    Matrix<T>& q = queries(layer, ln1, sequences, hooks);  // their keys and values are in the caches now
    if (layer + 1 == model_.config().layers && !sees_all_rows(hooks))
      keep_wanted_rows(sequences, hooks, {&q, &resid});
    const Matrix<T>& attn_out = attend(layer, q, sequences, hooks);
    add(resid, attn_out);
    see(HookPoint::ResidMid, layer, resid, hooks);
    const Matrix<T>& ln2 = norm(resid, w.ln2, HookPoint::Ln2Scale, HookPoint::Ln2Normalized, layer, hooks);
    const Matrix<T>& mlp_out = mlp(layer, ln2, hooks);
    add(resid, mlp_out);
    require_finite(all_finite(resid), "the residual stream after block " + std::to_string(layer));
    see(HookPoint::ResidPost, layer, resid, hooks);
  }
  if (end_block() == model_.config().layers) head(resid, sequences, hooks, logits);
}

template <class T>
Matrix<T>& Forward<T>::embed(const std::vector<int>& tokens) {
  const StoredMatrix& table = model_.embedding();
  Matrix<T>& resid = sized(of_.resid, table.cols);
  parallel_for(tokens.size(), [&](size_t r) {
    const std::vector<float> row = widen_row(table, static_cast<size_t>(tokens[r]));
    std::copy(row.begin(), row.end(), resid.row(r));
  }, threads_pay_from);
  return resid;
}

/// RMSNorm(x) ⊙ weight
template <class T>
Matrix<T>& Forward<T>::norm(const Matrix<T>& x, std::span<const float> weight, HookPoint scale_point,
                            HookPoint normalized_point, size_t layer, Hooks<T>& hooks) {
  Matrix<T>& scale = sized(of_.scale, 1);
  rmsnorm_scale(x, model_.config().rms_norm_eps, scale);
  see(scale_point, layer, scale, hooks);
  Matrix<T>& normalized = sized(of_.normalized, x.cols);
  rmsnorm_normalize(x, scale, normalized);
  see(normalized_point, layer, normalized, hooks);
  multiply_by_weight(normalized, weight);
  return normalized;
}

/// q = RoPE(W_Q x); k = RoPE(W_K x) and v = W_V x go to the caches.
template <class T>
Matrix<T>& Forward<T>::queries(size_t layer, const Matrix<T>& x, std::vector<Sequence<T>>& sequences,
                               Hooks<T>& hooks) {
  const ModelConfig& c = model_.config();
  const LayerWeights& w = model_.layer(layer);
  const size_t h = c.head_dim;
  Matrix<T>& q = sized(of_.q, w.wq.rows);
  Matrix<T>& k = sized(of_.k, w.wk.rows);
  Matrix<T>& v = sized(of_.v, w.wv.rows);
  linear<T>(kernels_, x, {{w.wq, w.bq, q}, {w.wk, w.bk, k}, {w.wv, w.bv, v}});
  see(HookPoint::Q, layer, q, hooks);
  see(HookPoint::K, layer, k, hooks);
  see(HookPoint::V, layer, v, hooks);
  rope(of_.cos, of_.sin, h, q);
  rope(of_.cos, of_.sin, h, k);
  see(HookPoint::RotQ, layer, q, hooks);
  see(HookPoint::RotK, layer, k, hooks);
  parallel_for(rows_.size(), [&](size_t r) {
    for (size_t head = 0; head < c.kv_heads; ++head)
      sequences[rows_[r].sequence].cache.store(layer, head, rows_[r].position, k.row(r) + head * h,
                                               v.row(r) + head * h);
  }, threads_pay_from);
  return q;
}

/// mlp_out = W_down · (silu(W_gate x) ⊙ W_up x)
template <class T>
Matrix<T>& Forward<T>::mlp(size_t layer, const Matrix<T>& x, Hooks<T>& hooks) {
  const LayerWeights& w = model_.layer(layer);
  Matrix<T>& gate = sized(of_.gate, w.w_gate.rows);
  Matrix<T>& up = sized(of_.up, w.w_up.rows);
  linear<T>(kernels_, x, {{w.w_gate, w.b_gate, gate}, {w.w_up, w.b_up, up}});
  see(HookPoint::Pre, layer, gate, hooks);
  see(HookPoint::PreLinear, layer, up, hooks);
  Matrix<T>& post = gate;  // in its place
  parallel_for(post.rows, [&](size_t r) {
    kernels_.silu_mul(gate.row(r), up.row(r), post.cols, post.row(r));
  }, threads_pay_from);
  see(HookPoint::Post, layer, post, hooks);
  Matrix<T>& mlp_out = sized(of_.mlp_out, w.w_down.rows);
  linear<T>(kernels_, post, {{w.w_down, w.b_down, mlp_out}});
  see(HookPoint::MlpOut, layer, mlp_out, hooks);
  return mlp_out;
}

/// logits = W_U · RMSNorm(resid), for the rows whose logits are wanted.
template <class T>
void Forward<T>::head(Matrix<T>& resid, const std::vector<Sequence<T>>& sequences, Hooks<T>& hooks,
                      Matrix<T>& logits) {
  const std::vector<float> weight = model_.final_norm();
  Matrix<T>& final_norm = norm(resid, weight, HookPoint::LnFinalScale, HookPoint::LnFinalNormalized, 0, hooks);
  if (extent_.logits == LogitRows::none) return;
  keep_wanted_rows(sequences, hooks, {&final_norm});
  Matrix<T>& all = sized(of_.logits, model_.lm_head().rows);
  linear<T>(kernels_, final_norm, {{model_.lm_head(), {}, all}});
  require_finite(all_finite(all), "the logits");
  see(HookPoint::Logits, 0, all, hooks);
  if (extent_.logits != LogitRows::last) return;
  for (size_t r = 0; r < rows_.size(); ++r)
    std::copy_n(all.row(r), all.cols, logits.row(rows_[r].sequence));
}

template <class T>
bool Forward<T>::wants_logits(const Row& row, const std::vector<Sequence<T>>& sequences,
                              const Hooks<T>& hooks) const {
  const Sequence<T>& sequence = sequences[row.sequence];
  if (extent_.logits == LogitRows::none) return false;
  if (hooks.wants({HookPoint::Logits, 0})) return row.position >= sequence.logits_from;
  return extent_.logits == LogitRows::last &&
         row.position + 1 == sequence.cache.length + sequence.pending.size();
}

/// Whether a hook sees, of the last block or the final norm, rows whose logits nobody wants.
template <class T>
bool Forward<T>::sees_all_rows(const Hooks<T>& hooks) const {
  const size_t layers = model_.config().layers;
  const std::vector<Hook> all = hooks.hooks();
  return std::any_of(all.begin(), all.end(), [&](Hook hook) {
    return hook.point != HookPoint::Logits && blocks_needed(hook, layers) == layers;
  });
}

/// Leaves the rows whose logits are wanted.
template <class T>
void Forward<T>::keep_wanted_rows(const std::vector<Sequence<T>>& sequences, const Hooks<T>& hooks,
                                  std::initializer_list<Matrix<T>*> values) {
  size_t kept = 0;
  for (size_t r = 0; r < rows_.size(); ++r) {
    if (!wants_logits(rows_[r], sequences, hooks)) continue;
    if (r != kept) {
      for (Matrix<T>* matrix : values) std::copy_n(matrix->row(r), matrix->cols, matrix->row(kept));
      rows_[kept] = rows_[r];
    }
    ++kept;
  }
  rows_.resize(kept);
  for (Matrix<T>* matrix : values) matrix->rows = kept;
}

template <class T>
void Forward<T>::see(HookPoint point, size_t layer, Matrix<T>& values, Hooks<T>& hooks) {
  const Hook here{point, layer};
  if (rows_.empty() || !hooks.wants(here)) return;
  hooks.call({here, rows_, values.cols, values.values.data(), values.cols, 0});
}

/// What is not finite stays so to the end: it is told where it begins, not after hours.
template <class T>
void Forward<T>::require_finite(bool finite, const std::string& what) const {
  if (finite) return;
  model_.require_finite_weights(end_block());
  throw NotFinite(model_.checkpoint().path().string() + ": " + what +
                  " is not finite, expected it to be as all weights are: " +
                  (sizeof(T) == 4 ? "fp32 overflows; try --precision fp64"
                                  : "fp64 overflows; choose another model or prompt"));
}

template <class T>
Matrix<T>& Forward<T>::sized(Matrix<T>& buffer, size_t cols) {
  buffer.rows = rows_.size();
  buffer.cols = cols;
  buffer.values.resize(buffer.rows * cols);
  return buffer;
}

template <class T>
size_t Forward<T>::end_block() const {
  return std::min(extent_.end_block, model_.config().layers);
}

template <class T>
Forward<T>::Forward(const Model& model, RunOptions options, Extent extent)
    : model_(model),
      options_(std::move(options)),
      extent_(extent),
      kernels_(find_kernels<T>(options_.kernel)) {
  if (options_.chunk == 0) throw InputError("--chunk 0: expected a number of tokens, at least 1");
}

template <class T>
Sequence<T> Forward<T>::start(std::vector<int> tokens) const {
  check_tokens(model_, tokens);
  return {KvCache<T>(model_.config(), end_block(), tokens.size()), std::move(tokens), 0};
}

template <class T>
Matrix<T> Forward<T>::run(std::vector<Sequence<T>>& sequences, Hooks<T>& hooks, bool prompt) {
  if (sequences.empty()) throw InputError("no prompt was given; expected at least one sequence");
  const auto ended = [](const Sequence<T>& s) { return s.cache.length > 0 && s.pending.empty(); };
  const bool all_ended = std::all_of(sequences.begin(), sequences.end(), ended);
  for (const Sequence<T>& s : sequences)
    if (all_ended || !ended(s)) check_tokens(model_, s.pending, s.cache.length);
  size_t done = 0, all = 0;
  for (Sequence<T>& s : sequences) {
    const size_t needed = s.cache.length + s.pending.size();
    // Decode asks for one more each time: grow in steps, to copy seldom.
    if (needed > s.cache.capacity()) s.cache.reserve(std::max(needed, s.cache.capacity() * 3 / 2));
    all += s.pending.size();
  }
  const bool returns = end_block() == model_.config().layers && extent_.logits == LogitRows::last;
  Matrix<T> logits(returns ? sequences.size() : 0, model_.config().vocab_size);
  const bool by_definition = options_.kernel == "spec";
  while (done < all) {
    const Pass next = next_pass(sequences, options_.chunk, prompt);
    by_definition ? step_by_definition(sequences, next, hooks, logits)
                  : step(sequences, next, hooks, logits);
    finish_pass(sequences, next);
    done += next.tokens.size();
    if (options_.progress) options_.progress(done, all);
  }
  return logits;
}

template <class T>
Extent extent_of(const Hooks<T>& hooks, const ModelConfig& config) {
  Extent extent{0, 0, hooks.wants({HookPoint::Logits, 0}) ? LogitRows::hooked : LogitRows::none};
  for (const Hook hook : hooks.hooks())
    extent.end_block = std::max(extent.end_block, blocks_needed(hook, config.layers));
  return extent;
}

template <class T>
void run(const Model& model, const RunOptions& options, const std::vector<std::vector<int>>& batch,
         Hooks<T>& hooks, size_t first_block) {
  Extent extent = extent_of(hooks, model.config());
  extent.first_block = first_block;
  Forward<T> forward(model, options, extent);
  std::vector<Sequence<T>> sequences;
  for (const std::vector<int>& tokens : batch) sequences.push_back(forward.start(tokens));
  forward.run(sequences, hooks);
  hooks.require_all_called();
}

#define SINKREF_FORWARD(T)                                                                      \
  template class Forward<T>;                                                                    \
  template Extent extent_of<T>(const Hooks<T>&, const ModelConfig&);                            \
  template void run<T>(const Model&, const RunOptions&, const std::vector<std::vector<int>>&,   \
                       Hooks<T>&, size_t);
SINKREF_FORWARD(float)
SINKREF_FORWARD(double)
#undef SINKREF_FORWARD

}  // namespace sinkref
