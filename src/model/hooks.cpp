#include "sinkref/hooks.h"

#include <algorithm>
#include <stdexcept>

#include "base/closest.h"
#include "base/split.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

using Config = ModelConfig;
using Shape = std::vector<size_t>;

Shape one(const Config&) { return {1}; }
Shape d(const Config& c) { return {c.hidden_size}; }
Shape query(const Config& c) { return {c.heads, c.head_dim}; }
Shape key(const Config& c) { return {c.kv_heads, c.head_dim}; }
Shape heads(const Config& c) { return {c.heads}; }
Shape mlp(const Config& c) { return {c.intermediate_size}; }
Shape vocabulary(const Config& c) { return {c.vocab_size}; }

using enum HookPoint;
using enum HookPlace;
using enum HookKind;

// clang-format off
/// Every point in the order in which it is computed.
constexpr HookInfo points[] = {
    {Embed, "hook_embed", before_blocks, stream, d,
     "the embedding", "row `token` of the embedding table"},
    {ResidPre, "hook_resid_pre", in_block, copy, d,
     "residual stream before attention", "the residual stream as the block before left it"},
    {Ln1Scale, "ln1.hook_scale", in_block, norm_scale, one,
     "sqrt(mean(x^2) + eps)", "sqrt(mean(resid_pre^2) + eps)"},
    {Ln1Normalized, "ln1.hook_normalized", in_block, normalized, d,
     "x / scale, before the weight", "resid_pre / ln1.scale, without the norm's weight"},
    {Q, "attn.hook_q", in_block, product, query,
     "before RoPE", "W_q (ln1.weight * ln1.normalized) + b_q"},
    {K, "attn.hook_k", in_block, product, key,
     "before RoPE", "W_k (ln1.weight * ln1.normalized) + b_k"},
    {V, "attn.hook_v", in_block, product, key,
     "values", "W_v (ln1.weight * ln1.normalized) + b_v"},
    {RotQ, "attn.hook_rot_q", in_block, rotated, query,
     "after RoPE", "q, x[i] and x[i + head_dim/2] turned by position * inv_freq[i]"},
    {RotK, "attn.hook_rot_k", in_block, rotated, key,
     "after RoPE", "k, x[i] and x[i + head_dim/2] turned by position * inv_freq[i]"},
    {AttnScores, "attn.hook_attn_scores", in_block, scores, heads,
     "scaled and masked", "rot_q . rot_k / sqrt(head_dim), -inf where masked"},
    {Pattern, "attn.hook_pattern", in_block, pattern, heads,
     "after softmax", "softmax of the scores over the keys"},
    {Z, "attn.hook_z", in_block, attended, query,
     "pattern times v", "sum over the keys of pattern * v"},
    {AttnOut, "hook_attn_out", in_block, product, d,
     "what attention adds", "W_o z + b_o"},
    {ResidMid, "hook_resid_mid", in_block, stream, d,
     "residual stream before the MLP", "resid_pre + attn_out"},
    {Ln2Scale, "ln2.hook_scale", in_block, norm_scale, one,
     "as ln1", "sqrt(mean(resid_mid^2) + eps)"},
    {Ln2Normalized, "ln2.hook_normalized", in_block, normalized, d,
     "as ln1", "resid_mid / ln2.scale, without the norm's weight"},
    {Pre, "mlp.hook_pre", in_block, product, mlp,
     "gate", "W_gate (ln2.weight * ln2.normalized)"},
    {PreLinear, "mlp.hook_pre_linear", in_block, product, mlp,
     "up", "W_up (ln2.weight * ln2.normalized)"},
    {Post, "mlp.hook_post", in_block, neurons, mlp,
     "silu(gate) * up: the neurons", "silu(pre) * pre_linear"},
    {MlpOut, "hook_mlp_out", in_block, product, d,
     "what the MLP adds", "W_down post"},
    {ResidPost, "hook_resid_post", in_block, stream, d,
     "residual stream after the block", "resid_mid + mlp_out"},
    {LnFinalScale, "ln_final.hook_scale", after_blocks, norm_scale, one,
     "as ln1", "sqrt(mean(resid_post^2) + eps) of the last block"},
    {LnFinalNormalized, "ln_final.hook_normalized", after_blocks, normalized, d,
     "as ln1", "resid_post of the last block / ln_final.scale"},
    {Logits, "logits", after_blocks, product, vocabulary,
     "of every position", "W_out (ln_final.weight * ln_final.normalized)"},
};
// clang-format on

}  // namespace

const HookInfo& hook_info(HookPoint point) { return points[static_cast<size_t>(point)]; }

std::string hook_name(Hook hook) {
  const std::string name = hook_info(hook.point).name;
  return is_in_block(hook.point) ? "blocks." + std::to_string(hook.layer) + "." + name : name;
}

std::vector<size_t> hook_shape(HookPoint point, const ModelConfig& config) {
  return hook_info(point).shape(config);
}

bool is_attention(HookPoint point) {
  return hook_info(point).kind == scores || hook_info(point).kind == pattern;
}

std::vector<Hook> all_hooks(size_t layers) {
  std::vector<Hook> hooks;
  const auto add = [&](HookPlace place, size_t layer) {
    for (const HookInfo& info : points)
      if (info.place == place) hooks.push_back({info.point, layer});
  };
  add(before_blocks, 0);
  for (size_t layer = 0; layer < layers; ++layer) add(in_block, layer);
  add(after_blocks, 0);
  return hooks;
}

size_t hook_index(Hook hook, size_t layers) {
  const auto count = [](HookPlace place) {
    return static_cast<size_t>(std::count_if(std::begin(points), std::end(points),
                                             [&](const HookInfo& info) { return info.place == place; }));
  };
  const size_t in_blocks = count(in_block), point = static_cast<size_t>(hook.point);
  switch (hook_info(hook.point).place) {
    case before_blocks: return point;
    case in_block: return point + hook.layer * in_blocks;
    case after_blocks: break;
  }
  return point + (layers - 1) * in_blocks;
}

size_t blocks_needed(Hook hook, size_t layers) {
  switch (hook_info(hook.point).place) {
    case before_blocks: return 0;
    case in_block: return hook.layer + 1;
    case after_blocks: break;
  }
  return layers;
}

bool glob_matches(std::string_view glob, std::string_view name) {
  // Only the last star is ever extended, so that the time stays the product of the lengths.
  size_t g = 0, n = 0, after_star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (g < glob.size() && glob[g] == '*') {
      after_star = ++g;
      resume = n;
    } else if (g < glob.size() && (glob[g] == '?' || glob[g] == name[n])) {
      ++g;
      ++n;
    } else if (after_star != std::string_view::npos) {
      g = after_star;
      n = ++resume;
    } else {
      return false;
    }
  }
  return glob.find_first_not_of('*', g) == std::string_view::npos;
}

std::vector<Hook> select_hooks(const std::string& globs, size_t layers, const std::string& where) {
  const std::vector<Hook> hooks = all_hooks(layers);
  const std::vector<std::string_view> wanted = split(globs, ',');
  for (const std::string_view glob : wanted) {
    const auto match = [&](Hook h) { return glob_matches(glob, hook_name(h)); };
    if (std::any_of(hooks.begin(), hooks.end(), match)) continue;
    // In all layers or in one: "resid_post" means blocks.*.hook_resid_post.
    std::vector<std::string> names;
    for (const HookInfo& info : points)
      names.push_back((info.place == in_block ? "blocks.*." : "") + std::string(info.name));
    for (Hook h : hooks) names.push_back(hook_name(h));
    throw InputError(where + ": no hook matches " + quoted(std::string(glob)) + "; the closest is " +
                     quoted(closest_name(glob, names)) + " (layers 0 to " +
                     std::to_string(layers - 1) + ")");
  }
  std::vector<Hook> chosen;
  for (Hook h : hooks)
    if (std::any_of(wanted.begin(), wanted.end(),
                    [&](std::string_view glob) { return glob_matches(glob, hook_name(h)); }))
      chosen.push_back(h);
  return chosen;
}

HookPoint block_point(const std::string& name, const std::string& where) {
  std::vector<std::string> names;
  std::vector<HookPoint> meant;
  for (const HookInfo& info : points) {
    if (info.place != in_block) continue;
    const std::string_view whole = info.name, last = whole.substr(whole.rfind('.') + 1);
    if (name == whole) return info.point;
    if (name == last || "hook_" + name == last) meant.push_back(info.point);
    names.emplace_back(whole);
  }
  if (meant.size() == 1) return meant[0];
  if (meant.size() > 1)
    throw InputError(where + ": " + quoted(name) + " may be " + quoted(hook_info(meant[0]).name) + " or " +
                     quoted(hook_info(meant[1]).name) + "; give one of them");
  throw InputError(where + ": no hook of a block is called " + quoted(name) + "; the closest is " +
                   quoted(closest_name(name, names)) + ", without its layer");
}

template <class T>
void Hooks<T>::add_for(size_t sequence, const Hooks& others) {
  for (const Entry& other : others.entries_)
    add(other.hook, [sequence, each = other.function](const Activation<T>& a) {
      std::vector<Row> rows;  // of a step they stand together
      size_t first = 0;
      for (size_t r = 0; r < a.rows.size(); ++r) {
        if (a.rows[r].sequence != sequence) continue;
        if (rows.empty()) first = r;
        rows.push_back(a.rows[r]);
        rows.back().sequence = 0;
      }
      if (!rows.empty()) each({a.hook, rows, a.width, a.row(first), a.stride, a.head});
    });
}

template <class T>
bool Hooks<T>::wants(Hook hook) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return entry.hook == hook; });
}

template <class T>
void Hooks<T>::call(const Activation<T>& activation) {
  for (Entry& entry : entries_)
    if (entry.hook == activation.hook) {
      entry.called = true;
      entry.function(activation);
    }
}

template <class T>
std::vector<Hook> Hooks<T>::hooks() const {
  std::vector<Hook> all;
  for (const Entry& entry : entries_) all.push_back(entry.hook);
  return all;
}

template <class T>
void Hooks<T>::require_all_called() const {
  for (const Entry& entry : entries_)
    if (!entry.called)
      throw std::logic_error("the hook " + hook_name(entry.hook) + " was asked for and never ran");
}

template class Hooks<float>;
template class Hooks<double>;

}  // namespace sinkref
