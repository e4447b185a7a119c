#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sinkref/hooks.h"
#include "sinkref/kernels.h"
#include "arithmetic/layers.h"
#include "sinkref/model.h"

namespace sinkref {

/// Keys (after RoPE) and values of one sequence, per layer and kv head, laid out as the kernels read
/// them: keys by key_index(), values [position][cache_padded(h)]. Nothing is ever evicted.
template <class T>
class KvCache {
 public:
  KvCache(const ModelConfig& config, size_t layers, size_t capacity);
  /// Of a cache that begins with position 0.
  const T* keys(size_t layer, size_t kv_head) const {
    return keys_.data() + (layer * kv_heads_ + kv_head) * stored_ * head_dim_;
  }
  const T* values(size_t layer, size_t kv_head) const {
    return values_.data() + (layer * kv_heads_ + kv_head) * stored_ * cache_padded(head_dim_);
  }
  /// Copies positions [begin(), end) to where a cache has them that begins with `to_panel`.
  void copy_to(size_t layer, size_t kv_head, size_t end, T* keys, T* values, size_t to_panel = 0) const;
  /// Key and value (h each) of one position below the capacity.
  void store(size_t layer, size_t kv_head, size_t position, const T* key, const T* value);
  /// Copies other's positions [other.begin(), end) here; they are not before this one's.
  void take(const KvCache& other, size_t end);
  size_t begin() const { return begin_; }  ///< the first position: 0 but for after()
  size_t capacity() const { return panel_ + stored_; }
  /// Room for at least `positions`; what is stored stays.
  void reserve(size_t positions);
  /// A copy of the first `positions`, with room for at least `room`, and of what is kept.
  KvCache beginning(size_t positions, size_t room) const;
  /// An empty one of the same shape for positions [positions, room).
  KvCache after(size_t positions, size_t room) const;

  size_t length = 0;  ///< positions filled, those before begin() too; a shorter length reuses a prefix
  KeptValues kept;    ///< what hooks keep of these positions

 private:
  /// One of the same shape that holds nothing, with room for positions [begin, room).
  KvCache(const KvCache& shape, size_t begin, size_t room);

  size_t layers_, kv_heads_, head_dim_;
  size_t begin_ = 0;
  size_t panel_ = 0, stored_ = 0;  ///< what is stored: [panel_, panel_ + stored_), whole panels
  Lines<T> keys_, values_;
};

/// One sequence of a batch: its cache, and the tokens still to be run.
template <class T>
struct Sequence {
  KvCache<T> cache;
  std::vector<int> pending;
  size_t logits_from = 0;  ///< for LogitRows::chosen: the positions from here on
  /// Whose positions come before cache.begin(): sequences then share a beginning, which is run and
  /// stored once. Complete, or earlier in the same batch. What hooks keep is kept by the first of the
  /// line, which so has to hold the positions that they keep (of the patch, 0 and 1).
  Sequence* parent = nullptr;
};

/// The sequence by itself: its line's positions in one cache, nothing pending.
template <class T>
Sequence<T> whole(const Sequence<T>& sequence);

/// The rows whose logits are computed: a hook on Logits sees just these.
enum class LogitRows { all, chosen, last, none };

/// How to run; none of it except `softmax` and `first_block` can change a bit.
struct RunOptions {
  std::string kernel = "auto";
  /// Tokens of each sequence per step. 512 are a tenth faster, and take 12 MB more for 135M parameters.
  size_t chunk = 128;
  Softmax softmax = Softmax::standard;
  size_t depth = SIZE_MAX;  ///< blocks to run; fewer than all means no logits
  /// Blocks before this one are skipped: a hook has to replace its resid_pre.
  size_t first_block = 0;
  LogitRows logits = LogitRows::last;
  /// Called after every step with (tokens done, tokens in all).
  std::function<void(size_t, size_t)> progress;
};

/// A model being run: T is float, or double for the truth that errors are measured against.
/// One path for prefill and decode: a step takes any rows of any sequences.
template <class T>
class Forward {
 public:
  Forward(const Model& model, RunOptions options);

  /// Throws InputError for tokens that cannot be run after `before` others: none, too many, or one
  /// outside the vocabulary.
  void check(const std::vector<int>& tokens, size_t before = 0) const;
  Sequence<T> start(std::vector<int> tokens) const;  ///< checks them

  /// Runs all pending tokens. Returns the logits of each sequence's last position (batch, V), or
  /// nothing (0 rows) for LogitRows::chosen and none. A sequence that has begun and has nothing
  /// pending is left alone, its logits are 0, as long as another has.
  /// `prompt`: the tokens belong to the prompt (prefill) rather than to a continuation (decode).
  /// Throws InputError for ids outside the vocabulary, no tokens, or more than max_positions, and
  /// where a block or the logits come out NaN or infinite: it names the weight that is the cause.
  Matrix<T> run(std::vector<Sequence<T>>& sequences, Hooks<T>& hooks, bool prompt = true);

  const Model& model() const { return model_; }
  const RunOptions& options() const { return options_; }

 private:
  void step(std::vector<Sequence<T>>& sequences, const std::vector<Row>& rows,
            const std::vector<int>& tokens, Hooks<T>& hooks, Matrix<T>& logits);
  void embed(const std::vector<int>& tokens);
  bool sees_all_rows(const Hooks<T>& hooks) const;
  void keep_chosen_rows(const std::vector<Sequence<T>>& sequences,
                        std::initializer_list<Matrix<T>*> values);
  void attention(size_t layer, std::vector<Sequence<T>>& sequences, Hooks<T>& hooks);
  void store(size_t layer, std::vector<Sequence<T>>& sequences) const;
  void attend(size_t layer, std::vector<Sequence<T>>& sequences, Hooks<T>& hooks);
  void mlp(size_t layer, Hooks<T>& hooks);
  void head(std::vector<Sequence<T>>& sequences, Hooks<T>& hooks, Matrix<T>& logits);
  void norm(std::span<const float> weight, HookPoint scale, HookPoint normalized, size_t layer,
            Hooks<T>& hooks);
  void hook(HookPoint point, size_t layer, Matrix<T>& values, Hooks<T>& hooks);
  void require_finite(const Matrix<T>& values, const std::string& what) const;
  Matrix<T>& sized(Matrix<T>& buffer, size_t cols);

  const Model& model_;
  RunOptions options_;
  const Kernels<T>& kernels_;
  size_t depth_;
  std::vector<Row> rows_;  // of the current step
  RopeTable rope_;
  // (rows, features). out_ is what attention or the MLP adds to the residual stream.
  Matrix<T> resid_, scale_, normed_, q_, k_, v_, z_, gate_, up_, out_, logits_;
};

extern template class KvCache<float>;
extern template class KvCache<double>;
extern template class Forward<float>;
extern template class Forward<double>;

/// The greedy continuation: at each step the first of the largest logits, until an eos token (which
/// is not returned) or `count` tokens. `sequence` holds the pending prompt.
template <class T>
std::vector<int> generate(Forward<T>& forward, Sequence<T> sequence, size_t count, Hooks<T>& hooks,
                          const std::function<void(int)>& each = {});

}  // namespace sinkref
