// The other softmax as a what-if.

#include "measure/section.h"

namespace sinkref {

Section softmax_section(const PageContext& context) {
  const Report& report = context.report;
  const SoftmaxWhatIf& other = *report.what_if;
  const std::string here = other.softmax == Softmax::one ? "softmax" : "softmax_1";
  const std::string there = other.softmax == Softmax::one ? "softmax_1" : "softmax";
  Section section{"softmax",
                  "7. What if attention could go nowhere?",
                  "softmax_1 adds one to the denominator, so that a head may attend to nothing. "
                  "This model was not trained with it: the same weights are run both ways, to see "
                  "whether the sink depends on attention having to sum to one.",
                  {},
                  {}};
  LineChart norms{"Residual norm of the first token", {"layer", false}, {"norm", true}, {}, {}};
  norms.series = {{here, counting(report.norms.resid_first.size()), report.norms.resid_first, 0,
                   Series::Mark::line},
                  {there, counting(other.norms.resid_first.size()), other.norms.resid_first, 1,
                   Series::Mark::line},
                  {here + ", ordinary text", counting(report.norms.resid_typical.size()),
                   report.norms.resid_typical, 0, Series::Mark::dashed},
                  {there + ", ordinary text", counting(other.norms.resid_typical.size()),
                   other.norms.resid_typical, 1, Series::Mark::dashed}};
  Figure figure{"softmax_one", "The same weights with " + there,
                "softmax_1(x)_i = exp(x_i) / (1 + sum_j exp(x_j)) in every layer.",
                "sinkref report --model " + context.model + " --softmax one --out DIR",
                {norms}};
  const RepeatRun* run = report.find(other.run.word, other.run.condition, false);
  for (const SinkLayer& sink : report.sinks) {
    if (run == nullptr) break;
    LineChart chart{"Layer " + std::to_string(sink.layer) + ", \"" + other.run.word + "\" repeated",
                    {"repeats", true}, {"residual norm", true}, {}, {}};
    const size_t layer = sink.layer;
    chart.series = {{here, counting(run->norms[layer].size(), 1), run->norms[layer], 0,
                     Series::Mark::line},
                    {there, counting(other.run.norms[layer].size(), 1), other.run.norms[layer], 1,
                     Series::Mark::line}};
    figure.panels.push_back(std::move(chart));
  }
  section.figures.push_back(std::move(figure));
  section.tables.push_back({"Sink metric on ordinary text, %",
                            {"softmax", "heads above 0.3"},
                            {{here, plain(report.metrics[0].percent)},
                             {there, plain(other.metric.percent)}}});
  return section;
}

}  // namespace sinkref
