#include "measure/json.h"
#include "measure/paper/panel.h"

namespace sinkref {

using nlohmann::ordered_json;

namespace {

ordered_json to_json(const PaperComparison& paper) {
  ordered_json j = {{"model", paper.row.model},
                    {"published",
                     {{"layer", paper.row.layer},
                      {"neurons", paper.row.neurons},
                      {"repeats", paper.row.repeats},
                      {"norm_first", paper.row.norm},
                      {"norm_ablated", paper.row.norm_ablated}}},
                    {"measured", nullptr},
                    {"layer_agrees", paper.layer_agrees},
                    {"neurons_agree", paper.neurons_agree}};
  if (paper.found)
    j["measured"] = {{"layer", paper.layer},
                     {"neurons", paper.neurons},
                     {"repeats", number(paper.median_count)},
                     {"repeats_by_word", paper.counts},
                     {"norm_first", number(paper.norm)},
                     {"norm_ablated", number(paper.norm_ablated)}};
  return j;
}

}  // namespace

void measure_paper(const Experiment& e, Results& results) {
  if (e.paper) results.put(compare_with_paper(published_row(*e.paper), e.stimuli, results));
}

void paper_json(const Experiment&, const Results& results, bool, ordered_json& j) {
  if (const PaperComparison* paper = results.find<PaperComparison>()) j["paper"] = to_json(*paper);
}

}  // namespace sinkref
