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
/// meanings are TransformerLens's with unfolded weights. Everything else that is known of a point is its
/// row in the table of src/model/hooks.cpp; `sinkref trace --help` prints it.
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

/// Where a point lies: once before the blocks, in every block, or once after them.
enum class HookPlace { before_blocks, in_block, after_blocks };

/// How a point's values come about: what rounding can do to them, and how they are laid out.
enum class HookKind {
  copy, stream, norm_scale, normalized, product, rotated, scores, pattern, attended, neurons
};

/// What is known of a point.
struct HookInfo {
  HookPoint point;
  const char* name;  ///< after "blocks.L."
  HookPlace place;
  HookKind kind;
  /// Shape of one position's value: {} for one number, {H, h} for q, … For scores and pattern {H}, to be
  /// followed by the number of keys. V for logits.
  std::vector<size_t> (*shape)(const ModelConfig& config);
  const char* meaning;  ///< a few words: "before RoPE"
  const char* formula;  ///< the step that gives it, as text
};
const HookInfo& hook_info(HookPoint point);

/// "blocks.3.attn.hook_q", "ln_final.hook_scale", "logits".
std::string hook_name(Hook hook);

/// All hooks of a model in causal order.
std::vector<Hook> all_hooks(size_t layers);

/// The hooks whose names match any of the comma-separated globs ('*' and '?'), in causal order.
/// A glob that matches nothing is an InputError that names the closest hook, and `where` the globs stand.
std::vector<Hook> select_hooks(const std::string& globs, size_t layers, const std::string& where = "--hooks");

/// The point of the blocks that a name without its layer stands for: "hook_resid_pre", "attn.hook_z", or shorter
/// "resid_pre", "z". InputError for another, which begins with `where` and names the closest.
HookPoint block_point(const std::string& name, const std::string& where = "--hook");

/// True for a name that `*`/`?` of the glob can be filled in to give.
bool glob_matches(std::string_view glob, std::string_view name);

std::vector<size_t> hook_shape(HookPoint point, const ModelConfig& config);

/// The place of a hook in all_hooks().
size_t hook_index(Hook hook, size_t layers);

/// True for AttnScores and Pattern, which come one query head at a time ([b,H,q,k] in a trace).
bool is_attention(HookPoint point);

inline bool is_in_block(HookPoint point) { return hook_info(point).place == HookPlace::in_block; }
inline bool is_after_blocks(HookPoint point) {
  return hook_info(point).place == HookPlace::after_blocks;
}

/// The blocks that have to be run for a hook: of Embed none, of ln_final and the logits all.
size_t blocks_needed(Hook hook, size_t layers);

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
/// A call brings rows of one sequence or of several, those of a sequence together; which sequences
/// share a call is the kernel's affair.
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
  /// The hooks that functions are on.
  std::vector<Hook> hooks() const;
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
