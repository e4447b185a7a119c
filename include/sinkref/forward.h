#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sinkref/batch.h"
#include "sinkref/hooks.h"
#include "sinkref/kernels.h"
#include "sinkref/model.h"

namespace sinkref {

/// How to run. Only `softmax` can change a bit.
struct RunOptions {
  std::string kernel = "auto";
  /// Tokens of each sequence per step. 512 are a tenth faster, and take 12 MB more for 135M parameters.
  size_t chunk = 128;
  Softmax softmax = Softmax::standard;
  /// Hooks on scores and pattern see all rows of a sequence at once instead of a few dozen: the heads are
  /// called one after the other, their values `rows · stride` apart, and all may still be changed at the
  /// last call. Takes heads · rows · keys numbers. "spec" calls each head by itself.
  bool whole_patterns = false;
  /// Called after every step with (tokens done, tokens in all).
  std::function<void(size_t, size_t)> progress;
};

/// The same without progress.
inline RunOptions without_progress(RunOptions options) {
  options.progress = nullptr;
  return options;
}

/// Whose logits are computed: nobody's; those that a hook on Logits asks for; or, without such a hook,
/// those of each sequence's last position. Forward::run() returns the last positions' for `last`.
enum class LogitRows { none, hooked, last };

/// The part of the model that is computed.
struct Extent {
  /// Blocks before this one are skipped: a hook has to replace its resid_pre.
  size_t first_block = 0;
  size_t end_block = SIZE_MAX;  ///< fewer than all means no logits
  LogitRows logits = LogitRows::last;
};

/// Throws InputError for tokens that cannot be run after `before` others: none, too many, or one
/// outside the vocabulary.
void check_tokens(const Model& model, const std::vector<int>& tokens, size_t before = 0);

/// As much of the model as the hooks need.
template <class T>
Extent extent_of(const Hooks<T>& hooks, const ModelConfig& config);

/// Runs whole sequences as far as the hooks need, from `first_block` on. Throws std::logic_error for a
/// hook that never fired, InputError as Forward::run() does.
template <class T>
void run(const Model& model, const RunOptions& options, const std::vector<std::vector<int>>& batch,
         Hooks<T>& hooks, size_t first_block = 0);

/// A model being run: T is float, or double for the truth that errors are measured against.
/// One path for prefill and decode: a step takes any rows of any sequences. The bits are those of
/// definition.h, which "spec" runs as it stands.
template <class T>
class Forward {
 public:
  Forward(const Model& model, RunOptions options, Extent extent = {});

  Sequence<T> start(std::vector<int> tokens) const;  ///< checks them

  /// Runs all pending tokens. Returns the logits of each sequence's last position (batch, V) for
  /// LogitRows::last, else nothing (0 rows). A sequence that has begun and has nothing pending is left
  /// alone, its logits are 0, as long as another has.
  /// `prompt`: the tokens belong to the prompt (prefill) rather than to a continuation (decode).
  /// Throws InputError for ids outside the vocabulary, no tokens, or more than max_positions, and
  /// where a block or the logits come out NaN or infinite: it names the weight that is the cause.
  Matrix<T> run(std::vector<Sequence<T>>& sequences, Hooks<T>& hooks, bool prompt = true);

  const Model& model() const { return model_; }
  const RunOptions& options() const { return options_; }

 private:
  void step(std::vector<Sequence<T>>& sequences, const Pass& pass, Hooks<T>& hooks, Matrix<T>& logits);
  void step_by_definition(std::vector<Sequence<T>>& sequences, const Pass& pass, Hooks<T>& hooks,
                          Matrix<T>& logits);
  Matrix<T>& embed(const std::vector<int>& tokens);
  Matrix<T>& norm(const Matrix<T>& x, std::span<const float> weight, HookPoint scale,
                  HookPoint normalized, size_t layer, Hooks<T>& hooks);
  Matrix<T>& queries(size_t layer, const Matrix<T>& x, std::vector<Sequence<T>>& sequences,
                     Hooks<T>& hooks);
  Matrix<T>& attend(size_t layer, const Matrix<T>& q, const std::vector<Sequence<T>>& sequences,
                    Hooks<T>& hooks);
  void attend_tiles(size_t layer, const Matrix<T>& q, const std::vector<Sequence<T>>& sequences,
                    Hooks<T>& hooks, Matrix<T>& z);
  Matrix<T>& mlp(size_t layer, const Matrix<T>& x, Hooks<T>& hooks);
  void head(Matrix<T>& resid, const std::vector<Sequence<T>>& sequences, Hooks<T>& hooks,
            Matrix<T>& logits);
  bool sees_all_rows(const Hooks<T>& hooks) const;
  bool wants_logits(const Row& row, const std::vector<Sequence<T>>& sequences,
                    const Hooks<T>& hooks) const;
  void keep_wanted_rows(const std::vector<Sequence<T>>& sequences, const Hooks<T>& hooks,
                        std::initializer_list<Matrix<T>*> values);
  void see(HookPoint point, size_t layer, Matrix<T>& values, Hooks<T>& hooks);
  void require_finite(bool finite, const std::string& what) const;
  Matrix<T>& sized(Matrix<T>& buffer, size_t cols);
  size_t end_block() const;

  const Model& model_;
  RunOptions options_;
  Extent extent_;
  const Kernels<T>& kernels_;
  std::vector<Row> rows_;  // of the current step
  struct {
    // (rows, features), one per quantity; kept from step to step, to allocate once
    Matrix<T> resid, scale, normalized, q, k, v, z, attn_out, gate, up, mlp_out, logits;
    Matrix<float> cos, sin;
  } of_;
};

extern template class Forward<float>;
extern template class Forward<double>;

/// A greedy continuation: at each step the first of the largest logits.
struct Greedy {
  std::vector<int> tokens;
  bool ended = false;  ///< by an end-of-text token, which is not among the tokens
};

/// The continuations of a batch whose last logits are `logits`: at most `count` tokens each, fewer after
/// an end-of-text token or where the context is full. `each` is told every token. All at once: a decode
/// step costs little more for several sequences than for one.
template <class T>
std::vector<Greedy> continue_greedily(Forward<T>& forward, std::vector<Sequence<T>>& batch,
                                      Matrix<T> logits, size_t count, Hooks<T>& hooks,
                                      const std::function<void(int)>& each = {});

/// The tokens that follow the pending prompt of one sequence.
template <class T>
std::vector<int> generate(Forward<T>& forward, Sequence<T> sequence, size_t count, Hooks<T>& hooks,
                          const std::function<void(int)>& each = {});

}  // namespace sinkref
