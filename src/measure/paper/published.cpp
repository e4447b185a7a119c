#include "measure/paper/published.h"

#include "sinkref/error.h"

namespace sinkref {

namespace {

const std::vector<PublishedRow> rows = {
    {"llama-1-7b", "LLaMA-1-7B", 450, 2, {7003}, 1400, 300},
    {"llama-2-7b", "LLaMA-2-7B", 1000, 1, {7890, 10411}, 1000, 150},
    {"llama-3-8b-instruct", "Meta-Llama-3-8B-Instruct", 4000, 1, {198, 2427}, 400, 8},
    {"mistral-7b-instruct", "Mistral-7B-Instruct-v0.1", 1200, 1, {7310, 8572}, 250, 17.5},
};

}  // namespace

const PublishedRow& published_row(const std::string& id) {
  std::string known;
  for (const PublishedRow& row : rows) {
    if (id == row.id) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.id);
  }
  throw InputError("--paper " + quoted(id) + ": expected one of " + known);
}

PaperComparison compare_with_paper(const PublishedRow& row, const Stimuli& stimuli,
                                   const Results& results) {
  PaperComparison paper;
  paper.row = row;
  if (results.sinks.empty()) return paper;
  const SinkLayer& sink = results.sinks[0];
  paper.found = true;
  paper.layer = sink.layer;
  paper.neurons = sink.neurons;
  paper.norm = sink.norm_first;
  paper.norm_ablated = sink.norm_ablated;
  paper.layer_agrees = sink.layer == row.layer;
  paper.neurons_agree = paper.layer_agrees && sink.neurons == row.neurons;
  std::vector<double> reached;
  for (const RepeatRun& run : results.runs) {
    if (run.condition != stimuli.usual().name || run.patched) continue;
    paper.counts.push_back(repeats_needed(run, results.sinks)[0].count);
    if (paper.counts.back() != 0) reached.push_back(static_cast<double>(paper.counts.back()));
  }
  paper.median_count = median(reached);
  return paper;
}

}  // namespace sinkref
