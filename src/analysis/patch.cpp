#include "sinkref/patch.h"

#include <charconv>
#include <map>

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

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
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

namespace {

template <class T>
void add_patch(const std::vector<Neurons>& neurons, Hooks<T>& hooks,
               const std::function<std::vector<T>&(size_t sequence, size_t entry)>& pinned) {
  for (size_t entry = 0; entry < neurons.size(); ++entry) {
    const Neurons& layer = neurons[entry];
    hooks.add({HookPoint::PreLinear, layer.layer}, [=](const Activation<T>& up) {
      for (size_t r = 0; r < up.rows.size(); ++r) {
        const Row& row = up.rows[r];
        std::vector<T>& v = pinned(row.sequence, entry);
        if (row.prompt && row.position == 1) {
          v.clear();
          for (size_t neuron : layer.indices) v.push_back(up.row(r)[neuron]);
        }
        if (row.position == 0 || v.empty()) continue;
        for (size_t i = 0; i < layer.indices.size(); ++i)
          up.row(r)[layer.indices[i]] = v[i];
      }
    });
  }
}

}  // namespace

template <class T>
void add_patch(const std::vector<Neurons>& neurons, Hooks<T>& hooks) {
  auto kept = std::make_shared<std::map<std::pair<size_t, size_t>, std::vector<T>>>();
  add_patch<T>(neurons, hooks, [kept](size_t sequence, size_t entry) -> std::vector<T>& {
    return (*kept)[{sequence, entry}];
  });
}

template <class T>
void add_patch(const std::vector<Neurons>& neurons, Hooks<T>& hooks,
               std::vector<Pinned<T>>& pinned) {
  for (Pinned<T>& sequence : pinned) sequence.resize(neurons.size());
  add_patch<T>(neurons, hooks, [&pinned](size_t sequence, size_t entry) -> std::vector<T>& {
    return pinned.at(sequence).at(entry);
  });
}

template <class T>
void add_ablation(const std::vector<Neurons>& neurons, Hooks<T>& hooks) {
  for (const Neurons& layer : neurons)
    hooks.add({HookPoint::Post, layer.layer}, [layer](const Activation<T>& post) {
      for (size_t r = 0; r < post.rows.size(); ++r)
        for (size_t neuron : layer.indices) post.row(r)[neuron] = T(0);
    });
}

template void add_patch<float>(const std::vector<Neurons>&, Hooks<float>&);
template void add_patch<float>(const std::vector<Neurons>&, Hooks<float>&,
                               std::vector<Pinned<float>>&);
template void add_patch<double>(const std::vector<Neurons>&, Hooks<double>&);
template void add_patch<double>(const std::vector<Neurons>&, Hooks<double>&,
                                std::vector<Pinned<double>>&);
template void add_ablation<float>(const std::vector<Neurons>&, Hooks<float>&);
template void add_ablation<double>(const std::vector<Neurons>&, Hooks<double>&);

}  // namespace sinkref
