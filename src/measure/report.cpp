#include "measure/report.h"

#include <algorithm>

namespace sinkref {

namespace {

std::vector<SinkInputs::Word> words_in(const ReportInputs::Condition& condition,
                                       std::vector<SinkInputs::Word> words) {
  for (SinkInputs::Word& word : words) word.prefix = condition.prefix;
  return words;
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
  const std::vector<SinkInputs::Word> words = words_in(condition, inputs.sink.words);
  RunPlan plan{condition.name, {}, nullptr, task && condition.request};
  std::optional<AttentionMasses> masses;
  if (attention != nullptr && attention->run.empty()) {
    attention->word = words[0].text;
    attention->condition = condition.name;
    attention->run_begins = condition.prefix.size();
    std::vector<size_t> layers;
    for (const LayerAttention& layer : attention->text) layers.push_back(layer.layer);
    masses.emplace(layers, condition.prefix.size(), model.config().heads,
                   condition.prefix.size() + condition.repeats);
    plan.attention = &*masses;
  }
  for (RepeatRun& run : run_words(model, options, words, condition.repeats, plan, step))
    report.runs.push_back(std::move(run));
  if (masses) attention->run = masses->layers();
}

void run_patched(const Model& model, const RunOptions& options, const ReportInputs& inputs,
                 bool task, const Step& step, Report& report) {
  if (report.patch.empty()) return;
  const ReportInputs::Condition& condition = inputs.conditions[0];
  const RunPlan plan{condition.name, report.patch, nullptr, task && condition.request};
  for (RepeatRun& run : run_words(model, options, words_in(condition, inputs.sink.words),
                                  condition.repeats, plan, step)) {
    report.next.push_back(compare_next(*report.find(run.word, condition.name, false), run));
    report.runs.push_back(std::move(run));
  }
}

std::vector<LayerAttention> text_attention(const Model& model, const RunOptions& options,
                                           const std::vector<int>& text,
                                           const std::vector<SinkLayer>& sinks) {
  AttentionMasses masses(attention_layers(layers_of(sinks), model.config().layers), 1, model.config().heads, text.size());
  Hooks<float> hooks;
  masses.attach(hooks);
  run(model, options, {text}, hooks);
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
  other.run = run_repeats(model, options, words_in(condition, inputs.sink.words)[0], condition.repeats,
                          {condition.name, {}, nullptr, false});
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
