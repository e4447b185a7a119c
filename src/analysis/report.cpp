#include "sinkref/report.h"

#include <algorithm>

namespace sinkref {

namespace {

SinkInputs::Word word_in(const ReportInputs::Condition& condition, SinkInputs::Word word) {
  word.prefix = condition.prefix;
  return word;
}

void measure_sinks(const Model& model, const RunOptions& options, const ReportInputs& inputs,
                   const Step& step, Report& report) {
  step("norms of the first token and of ordinary text, every layer");
  report.norms = measure_norms(model, options, inputs.sink);
  step("sink layers and neurons, by ablation");
  report.sinks = find_sinks(model, options, inputs.sink, report.norms);
  report.patch = inputs.patch.value_or(neurons_of(report.sinks));
  step("massive activations and the sink metric");
  report.massive = massive_activations(model, options, inputs.sink.text);
  for (const ReportInputs::Samples& samples : inputs.samples)
    report.metrics.push_back(sink_metric(model, options, samples.kind, samples.tokens));
}

/// Every word in one condition, original; the first word's attention if it is asked for.
void run_condition(const Model& model, const RunOptions& options, const ReportInputs& inputs,
                   const ReportInputs::Condition& condition, AttentionPanel* attention, bool task,
                   const Step& step, Report& report) {
  for (const SinkInputs::Word& plain : inputs.sink.words) {
    const SinkInputs::Word word = word_in(condition, plain);
    step(std::to_string(condition.repeats) + " repeats of \"" + word.text + "\" after " +
         condition.name);
    RunPlan plan{condition.name, {}, nullptr, task && condition.request};
    std::optional<AttentionMasses> masses;
    if (attention != nullptr && attention->run.empty()) {
      attention->word = word.text;
      attention->condition = condition.name;
      attention->run_begins = word.prefix.size();
      std::vector<size_t> layers;
      for (const LayerAttention& layer : attention->text) layers.push_back(layer.layer);
      masses.emplace(layers, word.prefix.size(), model.config().heads,
                     word.prefix.size() + condition.repeats);
      plan.attention = &*masses;
    }
    report.runs.push_back(run_repeats(model, options, word, condition.repeats, plan));
    if (masses) attention->run = masses->layers();
  }
}

void run_patched(const Model& model, const RunOptions& options, const ReportInputs& inputs,
                 bool task, const Step& step, Report& report) {
  if (report.patch.empty()) return;
  const ReportInputs::Condition& condition = inputs.conditions[0];
  for (const SinkInputs::Word& plain : inputs.sink.words) {
    step(std::to_string(condition.repeats) + " repeats of \"" + plain.text + "\", patched");
    report.runs.push_back(run_repeats(model, options, word_in(condition, plain), condition.repeats,
                                      {condition.name, report.patch, nullptr,
                                       task && condition.request}));
    report.next.push_back(
        compare_next(*report.find(plain.text, condition.name, false), report.runs.back()));
  }
}

std::vector<LayerAttention> text_attention(const Model& model, const RunOptions& options,
                                           const std::vector<int>& text,
                                           const std::vector<SinkLayer>& sinks) {
  AttentionMasses masses(attention_layers(layers_of(sinks), model.config().layers), 1, model.config().heads, text.size());
  Hooks<float> hooks;
  masses.attach(hooks);
  run_once(model, options, text, hooks);
  return masses.layers();
}

SoftmaxWhatIf other_softmax(const Model& model, RunOptions options, const ReportInputs& inputs) {
  options.softmax = options.softmax == Softmax::one ? Softmax::standard : Softmax::one;
  SoftmaxWhatIf other;
  other.softmax = options.softmax;
  other.norms = measure_norms(model, options, inputs.sink);
  other.sinks = find_sinks(model, options, inputs.sink, other.norms);
  other.metric = sink_metric(model, options, inputs.samples[0].kind, inputs.samples[0].tokens);
  const ReportInputs::Condition& condition = inputs.conditions[0];
  other.run = run_repeats(model, options, word_in(condition, inputs.sink.words[0]),
                          condition.repeats, {condition.name, {}, nullptr, false});
  return other;
}

}  // namespace

const RepeatRun* Report::find(const std::string& word, const std::string& condition,
                              bool patched) const {
  for (const RepeatRun& run : runs)
    if (run.word == word && run.condition == condition && run.patched == patched) return &run;
  return nullptr;
}

Report analyse_sinks(const Model& model, const RunOptions& options, const ReportInputs& inputs,
                     const Step& step) {
  Report report;
  measure_sinks(model, options, inputs, step, report);
  if (report.sinks.empty()) return report;
  run_condition(model, options, inputs, inputs.conditions[0], nullptr, false, step, report);
  run_patched(model, options, inputs, false, step, report);
  return report;
}

Report analyse(const Model& model, const RunOptions& options, const ReportInputs& inputs,
               const Step& step) {
  Report report;
  measure_sinks(model, options, inputs, step, report);
  step("attention in ordinary text");
  report.attention.text = text_attention(model, options, inputs.sink.text, report.sinks);
  for (const ReportInputs::Condition& condition : inputs.conditions)
    run_condition(model, options, inputs, condition, &report.attention, true, step, report);
  run_patched(model, options, inputs, true, step, report);
  step("the other softmax");
  report.what_if = other_softmax(model, options, inputs);
  return report;
}

}  // namespace sinkref
