// Agreement with Hugging Face, per golden file.

#include <algorithm>

#include "measure/goldens/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

Section goldens_section(const PageContext& context, const std::vector<GoldenResult>& goldens) {
  Section section{"goldens", "How near the numbers are to the truth",
                  "Golden files hold what Hugging Face's own code computes in true float64, and how "
                  "far its fp32 runs are from that. Below 1, sinkref is nearer to the truth than "
                  "the worst of those runs.",
                  {}, {}};
  LineChart chart{"Error in units of Hugging Face's fp32", {"tensor, in causal order", false},
                  {"ratio of rms errors", false}, {}, {{"equal", 1, false}, {"allowed", golden_allowance, false}}};
  Table table{"Golden files", {"file", "tensors", "worst ratio", "argmax equal", "greedy tokens equal", ""}, {}};
  for (const GoldenResult& golden : goldens) {
    Series series{golden.file, {}, {}, chart.series.size(), Series::Mark::dots};
    for (const GoldenTensor& tensor : golden.tensors)
      if (tensor.floor.rms > 0) {
        series.x.push_back(static_cast<double>(series.x.size()));
        series.y.push_back(tensor.ours.rms / tensor.floor.rms);
      }
    chart.series.push_back(std::move(series));
    const auto of = [](size_t part, size_t all) { return std::to_string(part) + " of " + std::to_string(all); };
    table.rows.push_back({golden.file, std::to_string(golden.tensors.size()), plain(golden.worst_ratio),
                          of(golden.argmax_equal, golden.argmax_compared),
                          of(golden.generated_equal, golden.generated), golden.agrees ? "agrees" : "differs"});
  }
  section.figures.push_back({"errors", "Error against true float64, tensor by tensor",
                             "Root mean square error of a tensor divided by the largest of several equally "
                             "valid Hugging Face fp32 runs.",
                             context.report_command(), {chart}});
  section.tables.push_back(std::move(table));
  return section;
}

Finding goldens_finding(const std::vector<GoldenResult>& goldens) {
  size_t agree = 0;
  double worst = 0;
  for (const GoldenResult& golden : goldens) {
    agree += golden.agrees;
    worst = std::max(worst, golden.worst_ratio);
  }
  return {"Can these numbers be trusted?",
          std::to_string(agree) + " of " + std::to_string(goldens.size()) +
              " golden files agree; the largest error is " + plain(worst) +
              " times that of Hugging Face's own fp32.",
          "Error against true float64, tensor by tensor.", "goldens"};
}

}  // namespace

void goldens_page(const PageContext& context, Page& page) {
  const Goldens* goldens = context.results.find<Goldens>();
  if (goldens == nullptr) return;
  page.findings.push_back(goldens_finding(goldens->files));
  page.sections.push_back(goldens_section(context, goldens->files));
}

}  // namespace sinkref
