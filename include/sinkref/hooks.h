#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sinkref/config.h"

namespace sinkref {

/// Every quantity that can be observed or replaced, in the order in which it is computed. Names and
/// meanings are TransformerLens's with unfolded weights; the table with names and meanings is in
/// src/model/hooks.cpp; `sinkref trace --help` prints it.
enum class HookPoint {
  Embed,
  ResidPre,
  Ln1Scale,
  Ln1Normalized,
  Q,
  K,
  V,
  RotQ,
  RotK,
  AttnScores,
  Pattern,
  Z,
  AttnOut,
  ResidMid,
  Ln2Scale,
  Ln2Normalized,
  Pre,
  PreLinear,
  Post,
  MlpOut,
  ResidPost,
  LnFinalScale,
  LnFinalNormalized,
  Logits,
};

/// One point of one layer. The points outside the blocks have layer 0.
struct Hook {
  HookPoint point = HookPoint::Logits;
  size_t layer = 0;
  auto operator<=>(const Hook&) const = default;
};

/// "blocks.3.attn.hook_q", "ln_final.hook_scale", "logits".
std::string hook_name(Hook hook);

/// A few words on what the point holds: "before RoPE", "what attention adds".
std::string hook_meaning(HookPoint point);

/// All hooks of a model in causal order.
std::vector<Hook> all_hooks(size_t layers);

/// The hooks whose names match any of the comma-separated globs ('*' and '?'), in causal order.
/// A glob that matches nothing is an InputError that names the closest hook.
std::vector<Hook> select_hooks(const std::string& globs, size_t layers);

/// True for a name that `*`/`?` of the glob can be filled in to give.
bool glob_matches(std::string_view glob, std::string_view name);

/// Shape of one position's value: {} for one number, {H, h} for q, … For AttnScores and Pattern
/// {H}, to be followed by the number of keys. V for logits.
std::vector<size_t> hook_shape(HookPoint point, const ModelConfig& config);

/// True for AttnScores and Pattern, which come one query head at a time ([b,H,q,k] in a trace).
bool is_attention(HookPoint point);

/// What hooks keep of one sequence for its later steps, by hook and neuron (a patch's v; nothing if
/// there was nothing to keep). It lies in the sequence's cache, so that chunks, decode, a batch in
/// another order, a copy of the sequence and a reused prefix all find it.
using KeptValues = std::map<std::pair<Hook, size_t>, std::optional<double>>;

/// A row of a step: which sequence of the batch, and which position of it.
struct Row {
  size_t sequence;
  size_t position;
  /// False for tokens that were generated (decode); the patch tells the phases apart.
  bool prompt;
  KeptValues* kept = nullptr;  ///< of the sequence
};

/// Values at one hook, as they are being computed. They may be changed: what follows uses them.
template <class T>
struct Activation {
  Hook hook;
  std::span<const Row> rows;
  size_t width;   ///< values per row; for AttnScores and Pattern the keys 0 … width-1
  T* values;      ///< rows, `stride` apart
  size_t stride;
  size_t head;    ///< AttnScores and Pattern come one query head at a time

  T* row(size_t r) const { return values + r * stride; }
};

/// What a run observes and changes. Functions on one hook run in the order they were added.
template <class T>
class Hooks {
 public:
  using Function = std::function<void(const Activation<T>&)>;

  void add(Hook hook, Function function) { entries_.push_back({hook, std::move(function)}); }
  /// All that `others` do, for one sequence of a batch: they see its rows alone, as sequence 0.
  void add_for(size_t sequence, const Hooks& others);
  bool wants(Hook hook) const;
  void call(const Activation<T>& activation);
  /// The number of blocks that have to be computed for these hooks (0 if there are none).
  size_t depth() const;
  /// std::logic_error if a function was never called: a hook that does not fire must not go unseen.
  void require_all_called() const;

 private:
  struct Entry {
    Hook hook;
    Function function;
    bool called = false;
  };
  std::vector<Entry> entries_;
};

extern template class Hooks<float>;
extern template class Hooks<double>;

}  // namespace sinkref
