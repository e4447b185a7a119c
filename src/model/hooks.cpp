#include "sinkref/hooks.h"

#include <algorithm>
#include <stdexcept>

#include "base/closest.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

struct PointName {
  HookPoint point;
  const char* name;
  bool in_block;
  const char* meaning;
};

constexpr PointName points[] = {
    {HookPoint::Embed, "hook_embed", false, "the embedding"},
    {HookPoint::ResidPre, "hook_resid_pre", true, "residual stream before attention"},
    {HookPoint::Ln1Scale, "ln1.hook_scale", true, "sqrt(mean(x^2) + eps)"},
    {HookPoint::Ln1Normalized, "ln1.hook_normalized", true, "x / scale, before the weight"},
    {HookPoint::Q, "attn.hook_q", true, "before RoPE"},
    {HookPoint::K, "attn.hook_k", true, "before RoPE"},
    {HookPoint::V, "attn.hook_v", true, "values"},
    {HookPoint::RotQ, "attn.hook_rot_q", true, "after RoPE"},
    {HookPoint::RotK, "attn.hook_rot_k", true, "after RoPE"},
    {HookPoint::AttnScores, "attn.hook_attn_scores", true, "scaled and masked"},
    {HookPoint::Pattern, "attn.hook_pattern", true, "after softmax"},
    {HookPoint::Z, "attn.hook_z", true, "pattern times v"},
    {HookPoint::AttnOut, "hook_attn_out", true, "what attention adds"},
    {HookPoint::ResidMid, "hook_resid_mid", true, "residual stream before the MLP"},
    {HookPoint::Ln2Scale, "ln2.hook_scale", true, "as ln1"},
    {HookPoint::Ln2Normalized, "ln2.hook_normalized", true, "as ln1"},
    {HookPoint::Pre, "mlp.hook_pre", true, "gate"},
    {HookPoint::PreLinear, "mlp.hook_pre_linear", true, "up"},
    {HookPoint::Post, "mlp.hook_post", true, "silu(gate) * up: the neurons"},
    {HookPoint::MlpOut, "hook_mlp_out", true, "what the MLP adds"},
    {HookPoint::ResidPost, "hook_resid_post", true, "residual stream after the block"},
    {HookPoint::LnFinalScale, "ln_final.hook_scale", false, "as ln1"},
    {HookPoint::LnFinalNormalized, "ln_final.hook_normalized", false, "as ln1"},
    {HookPoint::Logits, "logits", false, "of every position"},
};

std::vector<std::string> split_globs(const std::string& globs) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= globs.size();) {
    const size_t comma = std::min(globs.find(',', begin), globs.size());
    parts.push_back(globs.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return parts;
}

}  // namespace

std::string hook_name(Hook hook) {
  const PointName& p = points[static_cast<size_t>(hook.point)];
  return p.in_block ? "blocks." + std::to_string(hook.layer) + "." + p.name : p.name;
}

std::string hook_meaning(HookPoint point) {
  return points[static_cast<size_t>(point)].meaning;
}

std::vector<Hook> all_hooks(size_t layers) {
  std::vector<Hook> hooks = {{HookPoint::Embed, 0}};
  for (size_t layer = 0; layer < layers; ++layer)
    for (const PointName& p : points)
      if (p.in_block) hooks.push_back({p.point, layer});
  for (HookPoint last : {HookPoint::LnFinalScale, HookPoint::LnFinalNormalized, HookPoint::Logits})
    hooks.push_back({last, 0});
  return hooks;
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

std::vector<Hook> select_hooks(const std::string& globs, size_t layers) {
  const std::vector<Hook> hooks = all_hooks(layers);
  const std::vector<std::string> wanted = split_globs(globs);
  for (const std::string& glob : wanted) {
    const auto match = [&](Hook h) { return glob_matches(glob, hook_name(h)); };
    if (std::any_of(hooks.begin(), hooks.end(), match)) continue;
    // In all layers or in one: "resid_post" means blocks.*.hook_resid_post.
    std::vector<std::string> names;
    for (const PointName& p : points)
      names.push_back((p.in_block ? "blocks.*." : "") + std::string(p.name));
    for (Hook h : hooks) names.push_back(hook_name(h));
    throw InputError("--hooks: no hook matches " + quoted(glob) + "; the closest is " +
                     quoted(closest_name(glob, names)) + " (layers 0 to " +
                     std::to_string(layers - 1) + ")");
  }
  std::vector<Hook> chosen;
  for (Hook h : hooks)
    if (std::any_of(wanted.begin(), wanted.end(),
                    [&](const std::string& glob) { return glob_matches(glob, hook_name(h)); }))
      chosen.push_back(h);
  return chosen;
}

std::vector<size_t> hook_shape(HookPoint point, const ModelConfig& config) {
  switch (point) {
    case HookPoint::Ln1Scale:
    case HookPoint::Ln2Scale:
    case HookPoint::LnFinalScale:
      return {1};
    case HookPoint::Q:
    case HookPoint::RotQ:
    case HookPoint::Z:
      return {config.heads, config.head_dim};
    case HookPoint::K:
    case HookPoint::V:
    case HookPoint::RotK:
      return {config.kv_heads, config.head_dim};
    case HookPoint::AttnScores:
    case HookPoint::Pattern:
      return {config.heads};
    case HookPoint::Pre:
    case HookPoint::PreLinear:
    case HookPoint::Post:
      return {config.intermediate_size};
    case HookPoint::Logits:
      return {config.vocab_size};
    default:
      return {config.hidden_size};
  }
}

bool is_attention(HookPoint point) {
  return point == HookPoint::AttnScores || point == HookPoint::Pattern;
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
size_t Hooks<T>::depth() const {
  size_t depth = 0;
  for (const Entry& entry : entries_)
    if (points[static_cast<size_t>(entry.hook.point)].in_block)
      depth = std::max(depth, entry.hook.layer + 1);
  return depth;
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
