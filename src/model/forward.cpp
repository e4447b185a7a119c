// The forward pass of a LLaMA or Mistral model. Read step() first: it is the model.

#include "sinkref/forward.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "sinkref/error.h"
#include "arithmetic/layers.h"
#include "base/threads.h"

namespace sinkref {

template <class T>
void Forward<T>::step(std::vector<Sequence<T>>& sequences, const std::vector<Row>& rows,
                      const std::vector<int>& tokens, Hooks<T>& hooks, Matrix<T>& logits) {
  rows_ = rows;
  rope_ = rope_table(rows_, model_.inv_freq());
  embed(tokens);
  hook(HookPoint::Embed, 0, resid_, hooks);
  for (size_t layer = options_.first_block; layer < depth_; ++layer) {
    const LayerWeights& w = model_.layer(layer);
    hook(HookPoint::ResidPre, layer, resid_, hooks);
    norm(w.ln1, HookPoint::Ln1Scale, HookPoint::Ln1Normalized, layer, hooks);
    attention(layer, sequences, hooks);
    if (rows_.empty()) return;
    add(resid_, out_);
    hook(HookPoint::ResidMid, layer, resid_, hooks);
    norm(w.ln2, HookPoint::Ln2Scale, HookPoint::Ln2Normalized, layer, hooks);
    mlp(layer, hooks);
    add(resid_, out_);
    require_finite(resid_, "the residual stream after block " + std::to_string(layer));
    hook(HookPoint::ResidPost, layer, resid_, hooks);
  }
  if (depth_ == model_.config().layers) head(sequences, hooks, logits);
}

/// attn_out = Wo · concat over heads of softmax(q kᵀ / √h) v, with q and k rotated by position.
template <class T>
void Forward<T>::attention(size_t layer, std::vector<Sequence<T>>& sequences, Hooks<T>& hooks) {
  const ModelConfig& c = model_.config();
  const LayerWeights& w = model_.layer(layer);
  linear<T>(kernels_, normed_, {{w.wq, w.bq, sized(q_, w.wq.rows)},
                                {w.wk, w.bk, sized(k_, w.wk.rows)},
                                {w.wv, w.bv, sized(v_, w.wv.rows)}});
  hook(HookPoint::Q, layer, q_, hooks);
  hook(HookPoint::K, layer, k_, hooks);
  hook(HookPoint::V, layer, v_, hooks);
  rope(rope_, c.head_dim, q_);
  rope(rope_, c.head_dim, k_);
  hook(HookPoint::RotQ, layer, q_, hooks);
  hook(HookPoint::RotK, layer, k_, hooks);
  store(layer, sequences);
  if (layer + 1 == c.layers && !sees_all_rows(hooks)) keep_chosen_rows(sequences, {&q_, &resid_});
  if (rows_.empty()) return;
  sized(z_, w.wo.cols);
  attend(layer, sequences, hooks);
  hook(HookPoint::Z, layer, z_, hooks);
  linear<T>(kernels_, z_, {{w.wo, w.bo, sized(out_, c.hidden_size)}});
  hook(HookPoint::AttnOut, layer, out_, hooks);
}

/// mlp_out = W_down · (silu(W_gate x) ⊙ W_up x)
template <class T>
void Forward<T>::mlp(size_t layer, Hooks<T>& hooks) {
  const LayerWeights& w = model_.layer(layer);
  linear<T>(kernels_, normed_, {{w.w_gate, w.b_gate, sized(gate_, w.w_gate.rows)},
                                {w.w_up, w.b_up, sized(up_, w.w_up.rows)}});
  hook(HookPoint::Pre, layer, gate_, hooks);
  hook(HookPoint::PreLinear, layer, up_, hooks);
  Matrix<T>& post = gate_;  // in its place
  parallel_for(post.rows, [&](size_t r) {
    kernels_.silu_mul(gate_.row(r), up_.row(r), post.cols, post.row(r));
  }, threads_pay_from);
  hook(HookPoint::Post, layer, post, hooks);
  linear<T>(kernels_, post, {{w.w_down, w.b_down, sized(out_, resid_.cols)}});
  hook(HookPoint::MlpOut, layer, out_, hooks);
}

template <class T>
void Forward<T>::norm(std::span<const float> weight, HookPoint scale, HookPoint normalized,
                      size_t layer, Hooks<T>& hooks) {
  rmsnorm_scale(resid_, model_.config().rms_norm_eps, sized(scale_, 1));
  hook(scale, layer, scale_, hooks);
  rmsnorm_normalize(resid_, scale_, sized(normed_, resid_.cols));
  hook(normalized, layer, normed_, hooks);
  multiply_by_weight(normed_, weight);
}

/// logits = W_head · RMSNorm(resid), for the rows that LogitRows asks for.
template <class T>
void Forward<T>::head(std::vector<Sequence<T>>& sequences, Hooks<T>& hooks, Matrix<T>& logits) {
  norm(model_.final_norm(), HookPoint::LnFinalScale, HookPoint::LnFinalNormalized, 0, hooks);
  if (options_.logits == LogitRows::none) return;
  keep_chosen_rows(sequences, {&normed_});
  if (rows_.empty()) return;
  linear<T>(kernels_, normed_, {{model_.lm_head(), {}, sized(logits_, model_.config().vocab_size)}});
  require_finite(logits_, "the logits");
  hook(HookPoint::Logits, 0, logits_, hooks);
  if (logits.rows == 0) return;
  for (size_t r = 0; r < rows_.size(); ++r)
    std::copy_n(logits_.row(r), logits_.cols, logits.row(rows_[r].sequence));
}

/// Whether a hook wants, of the last block or the final norm, rows whose logits nobody asks for.
template <class T>
bool Forward<T>::sees_all_rows(const Hooks<T>& hooks) const {
  return hooks.depth() == model_.config().layers || hooks.wants({HookPoint::LnFinalScale, 0}) ||
         hooks.wants({HookPoint::LnFinalNormalized, 0});
}

/// Leaves the rows whose logits LogitRows asks for. Of the last block, once its keys and values are
/// stored, nothing else needs the others.
template <class T>
void Forward<T>::keep_chosen_rows(const std::vector<Sequence<T>>& sequences,
                                  std::initializer_list<Matrix<T>*> values) {
  const auto chosen = [&](const Row& row) {
    const Sequence<T>& sequence = sequences[row.sequence];
    switch (options_.logits) {
      case LogitRows::all: return true;
      case LogitRows::chosen: return row.position >= sequence.logits_from;
      case LogitRows::last: return row.position + 1 == sequence.cache.length + sequence.pending.size();
      case LogitRows::none: return false;
    }
    return false;
  };
  size_t kept = 0;
  for (size_t r = 0; r < rows_.size(); ++r) {
    if (!chosen(rows_[r])) continue;
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
void Forward<T>::embed(const std::vector<int>& tokens) {
  const StoredMatrix& table = model_.embedding();
  sized(resid_, table.cols);
  parallel_for(tokens.size(), [&](size_t r) {
    const std::vector<float> row = widen_row(table, static_cast<size_t>(tokens[r]));
    std::copy(row.begin(), row.end(), resid_.row(r));
  }, threads_pay_from);
}

template <class T>
void Forward<T>::hook(HookPoint point, size_t layer, Matrix<T>& values, Hooks<T>& hooks) {
  const Hook here{point, layer};
  if (!hooks.wants(here)) return;
  hooks.call({here, rows_, values.cols, values.values.data(), values.cols, 0});
}

/// What is not finite stays so to the end: it is told where it begins, not after hours.
template <class T>
void Forward<T>::require_finite(const Matrix<T>& values, const std::string& what) const {
  if (all_finite(values)) return;
  model_.require_finite_weights(depth_);
  refuse(model_.checkpoint().path().string(),
         what + " is not finite, expected it to be as all weights are: " +
             (sizeof(T) == 4 ? "fp32 overflows" : "fp64 overflows"),
         sizeof(T) == 4 ? "try --precision fp64" : "choose another model or prompt");
}

template <class T>
Matrix<T>& Forward<T>::sized(Matrix<T>& buffer, size_t cols) {
  buffer.rows = rows_.size();
  buffer.cols = cols;
  buffer.values.resize(buffer.rows * cols);
  return buffer;
}

template <class T>
Forward<T>::Forward(const Model& model, RunOptions options)
    : model_(model),
      options_(std::move(options)),
      kernels_(find_kernels<T>(options_.kernel)),
      depth_(std::min(options_.depth, model.config().layers)) {
  if (options_.chunk == 0) throw InputError("--chunk 0: expected a number of tokens, at least 1");
}

template <class T>
Sequence<T> Forward<T>::start(std::vector<int> tokens) const {
  check(tokens);
  return {KvCache<T>(model_.config(), depth_, tokens.size()), std::move(tokens), 0};
}

template <class T>
void Forward<T>::check(const std::vector<int>& tokens, size_t before) const {
  const ModelConfig& c = model_.config();
  const size_t length = before + tokens.size();
  if (tokens.empty()) refuse("the prompt", "is empty, expected at least one token", "give a text or ids");
  if (length > c.max_positions)
    refuse(model_.checkpoint().path().string(),
           "the input is " + std::to_string(length) + " tokens long, expected at most the model's limit of " +
               std::to_string(c.max_positions),
           "shorten it");
  for (int token : tokens)
    if (token < 0 || static_cast<size_t>(token) >= c.vocab_size)
      refuse(model_.checkpoint().path().string(),
             "token id " + std::to_string(token) + " is not in the vocabulary, expected 0 to " +
                 std::to_string(c.vocab_size - 1),
             "sinkref tokenize shows the ids of a text");
}

namespace {

template <class T>
Sequence<T>& first_of_line(Sequence<T>& sequence) {
  Sequence<T>* first = &sequence;
  while (first->parent != nullptr) first = first->parent;
  return *first;
}

/// Whether what comes before s is run by the end of a step of ran[i] tokens of each sequence.
template <class T>
bool parent_is_done(const std::vector<Sequence<T>>& sequences, const std::vector<size_t>& ran,
                    const Sequence<T>& s) {
  if (s.parent == nullptr || s.parent->pending.empty()) return true;
  const std::ptrdiff_t index = s.parent - sequences.data();
  if (index < 0 || index >= &s - sequences.data())
    throw std::logic_error("a sequence's parent is neither complete nor before it in the batch");
  return s.parent->pending.size() == ran[static_cast<size_t>(index)];
}

}  // namespace

template <class T>
Matrix<T> Forward<T>::run(std::vector<Sequence<T>>& sequences, Hooks<T>& hooks, bool prompt) {
  if (sequences.empty()) throw InputError("no prompt was given; expected at least one sequence");
  const auto ended = [](const Sequence<T>& s) { return s.cache.length > 0 && s.pending.empty(); };
  const bool all_ended = std::all_of(sequences.begin(), sequences.end(), ended);
  for (const Sequence<T>& s : sequences)
    if (all_ended || !ended(s)) check(s.pending, s.cache.length);
  size_t done = 0, all = 0;
  for (Sequence<T>& s : sequences) {
    const size_t needed = s.cache.length + s.pending.size();
    // Decode asks for one more each time: grow in steps, to copy seldom.
    if (needed > s.cache.capacity()) s.cache.reserve(std::max(needed, s.cache.capacity() * 3 / 2));
    all += s.pending.size();
  }
  const bool has_logits =
      depth_ == model_.config().layers &&
      (options_.logits == LogitRows::all || options_.logits == LogitRows::last);
  Matrix<T> logits(has_logits ? sequences.size() : 0, model_.config().vocab_size);
  while (done < all) {
    std::vector<Row> rows;
    std::vector<int> tokens;
    std::vector<size_t> ran(sequences.size(), 0);
    for (size_t i = 0; i < sequences.size(); ++i) {
      Sequence<T>& s = sequences[i];
      if (!parent_is_done(sequences, ran, s)) continue;
      ran[i] = std::min(options_.chunk, s.pending.size());
      KeptValues* kept = &first_of_line(s).cache.kept;
      for (size_t t = 0; t < ran[i]; ++t) {
        rows.push_back({i, s.cache.length + t, prompt, kept});
        tokens.push_back(s.pending[t]);
      }
    }
    step(sequences, rows, tokens, hooks, logits);
    for (size_t i = 0; i < sequences.size(); ++i) {
      std::vector<int>& pending = sequences[i].pending;
      sequences[i].cache.length += ran[i];
      pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(ran[i]));
    }
    done += tokens.size();
    if (options_.progress) options_.progress(done, all);
  }
  return logits;
}

template <class T>
std::vector<int> generate(Forward<T>& forward, Sequence<T> sequence, size_t count, Hooks<T>& hooks,
                          const std::function<void(int)>& each) {
  const std::vector<int>& eos = forward.model().config().eos_ids;
  // All at once: growing would hold the old and the new cache for a moment.
  const size_t positions = sequence.cache.length + sequence.pending.size() + count - 1;
  sequence.cache.reserve(std::min(positions, forward.model().config().max_positions));
  std::vector<Sequence<T>> batch;
  batch.push_back(std::move(sequence));
  std::vector<int> generated;
  bool prompt = true;
  while (generated.size() < count) {
    const Matrix<T> logits = forward.run(batch, hooks, prompt);
    const int token = static_cast<int>(argmax<T>({logits.row(0), logits.cols}));
    if (std::find(eos.begin(), eos.end(), token) != eos.end()) break;
    generated.push_back(token);
    if (each) each(token);
    batch[0].pending = {token};
    prompt = false;
  }
  return generated;
}

#define SINKREF_FORWARD(T)                                                              \
  template class Forward<T>;                                                            \
  template std::vector<int> generate<T>(Forward<T>&, Sequence<T>, size_t, Hooks<T>&,    \
                                        const std::function<void(int)>&);
SINKREF_FORWARD(float)
SINKREF_FORWARD(double)
#undef SINKREF_FORWARD

}  // namespace sinkref
