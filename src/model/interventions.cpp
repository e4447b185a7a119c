#include "sinkref/interventions.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "base/split.h"
#include "model/pin.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

size_t number(std::string_view text, const std::string& whole, const std::string& option,
              size_t limit, const char* what) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    throw InputError(option + " " + quoted(whole) + ": expected LAYER:NEURON,NEURON, as 1:7890,10411");
  if (value >= limit)
    throw InputError(option + " " + quoted(whole) + ": there is no " + what + " " +
                     std::to_string(value) + "; expected 0 to " + std::to_string(limit - 1));
  return value;
}

/// The patch by absolute position, so that it does not matter how the prompt comes in: position `at`
/// (of the paper's, 1) of a prompt gives v, every later position gets it.
template <class T>
void pin(Hook hook, const Row& row, size_t neuron, T& x, size_t at = 1) {
  if (row.position < at) return;
  const std::pair<Hook, size_t> key(hook, neuron);
  if (row.position == at) {
    (*row.kept)[key] = row.prompt ? std::optional<double>(x) : std::nullopt;
    return;
  }
  const auto v = row.kept->find(key);
  if (v == row.kept->end())
    throw std::logic_error("patch of " + hook_name(hook) + " neuron " + std::to_string(neuron) +
                           ": position " + std::to_string(at) + " of the sequence was run without it");
  if (v->second) x = static_cast<T>(*v->second);
}

}  // namespace

std::vector<Neurons> parse_neurons(const std::string& text, const std::string& option,
                                   const ModelConfig& config) {
  std::vector<Neurons> all;
  for (std::string_view part : split(text, ';')) {
    const size_t colon = part.find(':');
    const std::string_view neurons =
        colon == std::string_view::npos ? std::string_view() : part.substr(colon + 1);
    Neurons layer{number(part.substr(0, colon), text, option, config.layers, "layer"), {}};
    for (std::string_view neuron : split(neurons, ','))
      layer.indices.push_back(number(neuron, text, option, config.intermediate_size, "neuron"));
    all.push_back(std::move(layer));
  }
  return all;
}

std::string neurons_text(const std::vector<Neurons>& neurons) {
  std::string text;
  for (const Neurons& layer : neurons) {
    text += (text.empty() ? "" : ";") + std::to_string(layer.layer) + ":";
    for (size_t i = 0; i < layer.indices.size(); ++i)
      text += (i == 0 ? "" : ",") + std::to_string(layer.indices[i]);
  }
  return text.empty() ? "none" : text;
}

const char* patch_site_name(PatchSite site) {
  switch (site) {
    case PatchSite::up: return "up";
    case PatchSite::gate: return "gate";
    case PatchSite::both: return "both";
    case PatchSite::post: return "post";
  }
  throw std::logic_error("there is no such patch site");
}

std::vector<HookPoint> pinned_points(PatchSite site) {
  switch (site) {
    case PatchSite::up: return {HookPoint::PreLinear};
    case PatchSite::gate: return {HookPoint::Pre};
    case PatchSite::both: return {HookPoint::Pre, HookPoint::PreLinear};
    case PatchSite::post: return {HookPoint::Post};
  }
  throw std::logic_error("there is no such patch site");
}

template <class T>
void add_patch(const std::vector<Neurons>& neurons, Hooks<T>& hooks, PatchSite site) {
  for (const Neurons& layer : neurons)
    for (HookPoint point : pinned_points(site))
      hooks.add({point, layer.layer}, [layer](const Activation<T>& x) {
        for (size_t r = 0; r < x.rows.size(); ++r)
          for (size_t neuron : layer.indices) pin(x.hook, x.rows[r], neuron, x.row(r)[neuron]);
      });
}

template <class T>
void pin_element(Hook hook, const Row& row, size_t element, size_t at, T& x) {
  pin(hook, row, element, x, at);
}

template <class T>
void add_ablation(const std::vector<Neurons>& neurons, Hooks<T>& hooks) {
  for (const Neurons& layer : neurons)
    hooks.add({HookPoint::Post, layer.layer}, [layer](const Activation<T>& post) {
      for (size_t r = 0; r < post.rows.size(); ++r)
        for (size_t neuron : layer.indices) post.row(r)[neuron] = T(0);
    });
}

template <class T>
void add_blinding(size_t layer, std::optional<size_t> head, Hooks<T>& hooks) {
  hooks.add({HookPoint::Pattern, layer}, [head](const Activation<T>& a) {
    if (head && a.head != *head) return;
    for (size_t r = 0; r < a.rows.size(); ++r) {
      std::fill_n(a.row(r), a.width, T(0));
      a.row(r)[a.rows[r].position] = T(1);
    }
  });
}

template <class T>
void add_mark(size_t layer, const std::vector<double>& mark, Hooks<T>& hooks) {
  hooks.add({HookPoint::AttnOut, layer}, [mark](const Activation<T>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      for (size_t i = 0; i < a.width; ++i) a.row(r)[i] += static_cast<T>(mark[i]);
  });
}

#define SINKREF_INTERVENTIONS(T)                                                            \
  template void add_patch<T>(const std::vector<Neurons>&, Hooks<T>&, PatchSite);            \
  template void pin_element<T>(Hook, const Row&, size_t, size_t, T&);                       \
  template void add_ablation<T>(const std::vector<Neurons>&, Hooks<T>&);                    \
  template void add_blinding<T>(size_t, std::optional<size_t>, Hooks<T>&);                  \
  template void add_mark<T>(size_t, const std::vector<double>&, Hooks<T>&);
SINKREF_INTERVENTIONS(float)
SINKREF_INTERVENTIONS(double)
#undef SINKREF_INTERVENTIONS

}  // namespace sinkref
