#include <algorithm>

#include "measure/json.h"
#include "measure/patch_effect/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

ordered_json neurons_json(const std::vector<NeuronValue>& values) {
  ordered_json all = ordered_json::array();
  for (const NeuronValue& n : values)
    all.push_back({{"layer", n.layer}, {"neuron", n.neuron}, {"gate", number(n.gate)}, {"up", number(n.up)},
                   {"post", number(n.post)}, {"added", number(n.added)}});
  return all;
}

ordered_json effect_json(const RunEffect& e, bool with_curves) {
  ordered_json j;
  j["sinks"] = ordered_json::array();
  for (const RunNorms& run : e.sinks) {
    ordered_json sink = {{"layer", run.layer},
                         {"count", run.count},
                         {"norm_last", number(run.norms.back())},
                         {"norm_largest", number(*std::max_element(run.norms.begin(), run.norms.end()))}};
    if (with_curves) sink["norms"] = numbers(run.norms);
    j["sinks"].push_back(sink);
  }
  j["neurons"] = neurons_json(e.neurons);
  j["attention"] = ordered_json::array();
  for (const RunAttention& a : e.attention)
    j["attention"].push_back({{"layer", a.layer}, {"on_first", number(a.on_first)}, {"on_run", number(a.on_run)}});
  j["next"] = ordered_json::array();
  for (const TokenProbability& t : e.next)
    j["next"].push_back({{"token", t.token}, {"probability", number(t.probability)}});
  j["entropy"] = number(e.entropy);
  j["total_variation"] = number(e.total_variation);
  j["kl"] = number(e.kl);
  j["run_probability"] = number(e.run_probability);
  j["continuation"] = e.continuation;
  j["kept"] = e.kept;
  return j;
}

ordered_json text_json(const TextEffect& e) {
  ordered_json j = {{"nll", number(e.nll)},
                    {"nll_stderr", number(e.nll_error)},
                    {"difference", number(e.difference)},
                    {"difference_stderr", number(e.difference_error)},
                    {"perplexity", number(e.perplexity)},
                    {"perplexity_stderr", number(e.perplexity_error)},
                    {"kl_mean", number(e.kl_mean)},
                    {"kl_max", number(e.kl_max)},
                    {"argmax_changed", number(e.argmax_changed)},
                    {"logit_rms", number(e.logit_rms)},
                    {"logit_max", number(e.logit_max)}};
  j["tokens"] = ordered_json::array();
  for (const LogitShift& t : e.tokens)
    j["tokens"].push_back(
        {{"token", t.token}, {"mean_absolute", number(t.mean_absolute)}, {"mean", number(t.mean)}});
  j["positions"] = ordered_json::array();
  for (const PositionShift& p : e.positions)
    j["positions"].push_back({{"piece", p.piece}, {"position", p.position}, {"token", p.token},
                              {"kl", number(p.kl)}, {"nll", number(p.nll)}, {"nll_patched", number(p.nll_patched)}});
  return j;
}

}  // namespace

ordered_json to_json(const PatchEffect& effect, bool with_curves) {
  ordered_json j;
  j["patch"] = neurons_text(effect.neurons);
  j["runs"] = ordered_json::array();
  for (const RunEffects& run : effect.runs) {
    ordered_json one = {{"run", run.name},
                        {"length", run.length},
                        {"position_0", neurons_json(run.first)},
                        {"position_1", neurons_json(run.second)}};
    for (size_t i = 0; i < run.effects.size(); ++i)
      one[interventions[i].name] = effect_json(run.effects[i], with_curves);
    j["runs"].push_back(one);
  }
  j["words"] = each(effect.words, [](const WordEffect& word) {
    ordered_json one = {{"word", word.word}, {"token", word.token}};
    for (size_t i = 0; i < word.sinks.size(); ++i)
      one[interventions[i].name] = each(word.sinks[i], [](const WordAtSink& sink) {
        return ordered_json{{"layer", sink.layer}, {"count", sink.count}, {"norm_last", number(sink.norm_last)}};
      });
    return one;
  });
  j["text"] = {{"pieces", effect.pieces}, {"predicted_tokens", effect.predicted}};
  for (size_t i = 0; i < effect.text.size(); ++i)
    j["text"][interventions[i].name] = text_json(effect.text[i]);
  return j;
}

void patch_effect_json(const Experiment&, const Results& results, bool with_curves,
                       ordered_json& j) {
  if (const PatchEffect* effect = results.find<PatchEffect>())
    j["patch_effect"] = to_json(*effect, with_curves);
}

}  // namespace sinkref
