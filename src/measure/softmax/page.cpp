// The other softmax as a what-if.

#include <algorithm>

#include "measure/definitions/panel.h"
#include "measure/softmax/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

Section softmax_section(const PageContext& context) {
  const Results& results = context.results;
  const SoftmaxWhatIf& other = context.results.get<SoftmaxWhatIf>();
  const std::string here = other.softmax == Softmax::one ? "softmax" : "softmax_1";
  const std::string there = other.softmax == Softmax::one ? "softmax_1" : "softmax";
  Section section{"softmax",
                  "What if attention could go nowhere?",
                  "softmax_1 adds one to the denominator, so that a head may attend to nothing. "
                  "This model was not trained with it: the same weights are run both ways, to see "
                  "whether the sink depends on attention having to sum to one.",
                  {},
                  {}};
  LineChart norms{"Residual norm of the first token", {"layer", false}, {"norm", true}, {}, {}};
  norms.series = {{here, counting(results.norms.resid_first.size()), results.norms.resid_first, 0,
                   Series::Mark::line},
                  {there, counting(other.norms.resid_first.size()), other.norms.resid_first, 1,
                   Series::Mark::line},
                  {here + ", ordinary text", counting(results.norms.resid_typical.size()),
                   results.norms.resid_typical, 0, Series::Mark::dashed},
                  {there + ", ordinary text", counting(other.norms.resid_typical.size()),
                   other.norms.resid_typical, 1, Series::Mark::dashed}};
  Figure figure{"softmax_one", "The same weights with " + there,
                "softmax_1(x)_i = exp(x_i) / (1 + sum_j exp(x_j)) in every layer.",
                context.report_command(other.softmax == Softmax::one ? " --softmax one" : ""),
                {norms}};
  const RepeatRun* run = results.run_of(other.run.word, other.run.condition, false);
  for (const SinkLayer& sink : results.sinks) {
    if (run == nullptr) break;
    LineChart chart{"Layer " + std::to_string(sink.layer) + ", \"" + other.run.word + "\" " + after_text(other.run.condition),
                    {"repeats", true}, {"residual norm", true}, {}, {}};
    const size_t layer = sink.layer;
    chart.series = {{here, counting(run->norms[layer].size(), 1), run->norms[layer], 0,
                     Series::Mark::line},
                    {there, counting(other.run.norms[layer].size(), 1), other.run.norms[layer], 1,
                     Series::Mark::line}};
    figure.plots.push_back(std::move(chart));
  }
  section.figures.push_back(std::move(figure));
  section.tables.push_back({"Sink metric on ordinary text, %",
                            {"softmax", "heads above 0.3"},
                            {{here, plain(results.get<Definitions>().metrics[0].percent)},
                             {there, plain(other.metric.percent)}}});
  return section;
}

Finding softmax_finding(const PageContext& context) {
  const Results& results = context.results;
  const SoftmaxWhatIf& other = results.get<SoftmaxWhatIf>();
  const auto largest = [](const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); };
  const bool one = other.softmax == Softmax::one;
  return {"Would the sink vanish if heads could attend to nothing?",
          std::string("With ") + (one ? "softmax_1" : "the standard softmax") +
              " and the same weights the first token's largest norm is " +
              plain(largest(other.norms.resid_first)) + " instead of " +
              plain(largest(results.norms.resid_first)) + ", and " +
              percent(other.metric.percent / 100) + " of the heads park on position 0 instead of " +
              percent(results.get<Definitions>().metrics[0].percent / 100) + " (ordinary text).",
          "A what-if without training: softmax_1 adds 1 to the denominator of every attention.",
          "softmax"};
}

}  // namespace

void softmax_page(const PageContext& context, Page& page) {
  page.findings.push_back(softmax_finding(context));
  page.sections.push_back(softmax_section(context));
}

}  // namespace sinkref
