// The table at the top of the page, in words for somebody who has not read the paper.

#include <algorithm>

#include "measure/section.h"

namespace sinkref {

namespace {

std::string times(double ratio) { return plain(ratio) + " times"; }

std::string sentence(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 32);
  return text + ".";
}

Finding sink_finding(const PageContext& context) {
  const Report& report = context.report;
  Finding finding{"Does the model treat its very first token specially (an attention sink)?", "",
                  "Norm of the residual stream of the lone first token against ordinary text; the "
                  "layer's MLP must add more than " + plain(massive_ratio) +
                      " times the usual, by a few neurons.",
                  "sinks"};
  if (report.sinks.empty()) {
    finding.answer = "No. No layer's MLP gives the first token a norm far above that of ordinary "
                     "tokens by a few neurons.";
    return finding;
  }
  std::vector<std::string> parts;
  for (const SinkLayer& sink : report.sinks)
    parts.push_back("after layer " + std::to_string(sink.layer) + " its norm is " +
                    plain(sink.norm_first) + ", " + times(sink.norm_first / sink.norm_typical) +
                    " that of ordinary tokens (" + plain(sink.norm_typical) + ")");
  finding.answer = "Yes: " + joined_text(parts) + ".";
  return finding;
}

Finding neurons_finding(const PageContext& context) {
  std::vector<std::string> parts;
  for (const SinkLayer& sink : context.report.sinks)
    parts.push_back(std::string(sink.neurons.size() == 1 ? "neuron " : "neurons ") +
                    list_text(sink.neurons) + " of layer " + std::to_string(sink.layer) +
                    " (without them the norm falls from " + plain(sink.norm_first) + " to " +
                    plain(sink.norm_ablated) + ")");
  return {"Which neurons do it?", sentence(joined_text(parts)),
          "The fewest of the ten strongest whose zero-ablation takes the MLP's output below a "
          "quarter and the residual below a half.",
          "sinks"};
}

Finding definitions_finding(const PageContext& context) {
  const Report& report = context.report;
  const size_t rule = first_layer_above(report.norms, report.norms.threshold_notebook);
  std::vector<size_t> massive;
  for (size_t layer = 0; layer < report.massive.size(); ++layer)
    if (report.massive[layer].by_all) massive.push_back(layer);
  std::string answer = rule < report.norms.mlp_first.size()
                           ? "The paper's rule names layer " + std::to_string(rule)
                           : "The paper's rule names no layer";
  answer += massive.empty() ? "; no layer has massive activations"
            : massive.size() == 1
                ? "; layer " + std::to_string(massive[0]) + " has massive activations"
                : "; layers " + std::to_string(massive.front()) + " to " +
                      std::to_string(massive.back()) + " have massive activations";
  answer += "; " + percent(report.metrics[0].percent / 100) +
            " of the heads park more than 30 % of their attention on position 0.";
  return {"Do the published definitions see it too?", answer,
          "Yona et al.: first of the first 15 layers above mean + 2 standard deviations. Sun et "
          "al.: a value above 100 and 1000 medians. Gu et al.: sink metric, epsilon 0.3.",
          "sinks"};
}

Finding repeats_finding(const PageContext& context) {
  const Report& report = context.report;
  const std::string& condition = context.usual().name;
  std::vector<std::string> parts;
  for (size_t i = 0; i < report.sinks.size(); ++i) {
    std::vector<size_t> counts;
    size_t words = 0;
    for (const RepeatRun& run : report.runs) {
      if (run.condition != condition || run.patched) continue;
      ++words;
      const size_t count = repeats_needed(run, report.sinks)[i].count;
      if (count != 0) counts.push_back(count);
    }
    const std::string layer = "layer " + std::to_string(report.sinks[i].layer);
    if (counts.empty()) {
      parts.push_back("at " + layer + " not within " + std::to_string(context.usual().repeats) +
                      " repeats");
      continue;
    }
    const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
    parts.push_back("at " + layer + " after " + std::to_string(*least) +
                    (least == most || *least == *most ? "" : " to " + std::to_string(*most)) +
                    " repeats (" + std::to_string(counts.size()) + " of " + std::to_string(words) +
                    " words)");
  }
  return {"Does a long run of one word come to look like a first token?",
          sentence(report.sinks.empty() ? "there is no sink that it could set off"
                                        : joined_text(parts)),
          "First repeat whose norm passes the geometric mean of ordinary text and first token; the "
          "run stands after " + condition + ".",
          "norms"};
}

Finding attention_finding(const PageContext& context) {
  const AttentionPanel& panel = context.report.attention;
  const size_t middle = context.report.norms.mlp_first.size() / 2;
  const auto at = [&](const std::vector<LayerAttention>& layers) {
    return std::find_if(layers.begin(), layers.end(),
                        [&](const LayerAttention& l) { return l.layer == middle; });
  };
  const auto text = at(panel.text), run = at(panel.run);
  return {"Where does attention go?",
          "In the middle layer (" + std::to_string(middle) + ") a token of ordinary text gives " +
              percent(mean(text->on_first, 1)) + " of its attention to position 0. At the end of the run, " +
              percent(run->on_first.back()) + " goes to position 0 and " +
              percent(run->on_body.back()) + " is spread over the run.",
          "Means over the heads (and, for the text, over its positions from 1).", "attention"};
}

Finding task_finding(const PageContext& context) {
  std::vector<std::string> parts;
  std::vector<size_t> points = continuation_points(context.inputs.sink.repeats);
  std::string answer;
  for (size_t n : {points.front(), points.back()}) {
    size_t prompts = 0, kept = 0;
    for (const RepeatRun& run : context.report.runs)
      for (const Continuation& c : run.continuations)
        if (!run.patched && c.repeats == n) {
          ++prompts;
          kept += c.outcome == Outcome::repeats;
        }
    if (prompts == 0 || (!parts.empty() && points.size() == 1)) continue;
    parts.push_back(std::to_string(kept) + " of " + std::to_string(prompts) + " prompts after " +
                    std::to_string(n) + " repeats");
  }
  return {"Asked to repeat a word, does the model go on repeating it?",
          parts.empty() ? "No prompt with a request was run." : "It does in " + joined_text(parts) + ".",
          "Greedy continuation of " + std::to_string(continuation_tokens) +
              " tokens; all must be the word.",
          "repeat-task"};
}

Finding softmax_finding(const PageContext& context) {
  const Report& report = context.report;
  const SoftmaxWhatIf& other = *report.what_if;
  const auto largest = [](const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); };
  const bool one = other.softmax == Softmax::one;
  return {"Would the sink vanish if heads could attend to nothing?",
          std::string("With ") + (one ? "softmax_1" : "the standard softmax") +
              " and the same weights the first token's largest norm is " +
              plain(largest(other.norms.resid_first)) + " instead of " +
              plain(largest(report.norms.resid_first)) + ", and " +
              percent(other.metric.percent / 100) + " of the heads park on position 0 instead of " +
              percent(report.metrics[0].percent / 100) + ".",
          "A what-if without training: softmax_1 adds 1 to the denominator of every attention.",
          "softmax"};
}

}  // namespace

std::vector<Finding> findings_of(const PageContext& context) {
  std::vector<Finding> findings = {sink_finding(context)};
  if (!context.report.sinks.empty()) findings.push_back(neurons_finding(context));
  findings.push_back(definitions_finding(context));
  findings.push_back(repeats_finding(context));
  findings.push_back(attention_finding(context));
  findings.push_back(task_finding(context));
  if (context.report.first_layer) findings.push_back(first_layer_finding(context));
  if (context.report.clusters) findings.push_back(cluster_finding(context));
  if (!context.report.next.empty()) findings.push_back(patch_finding(context));
  if (context.report.what_if) findings.push_back(softmax_finding(context));
  return findings;
}

}  // namespace sinkref
