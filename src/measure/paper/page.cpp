// The paper's row beside the measured one.

#include "measure/paper/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

Section paper_section(const PaperComparison& paper) {
  const auto verdict = [&](bool agrees) { return !paper.found ? "no sink found" : agrees ? "equal" : "differs"; };
  const double ratio = paper.median_count / static_cast<double>(paper.row.repeats);
  Section section{"paper", "Beside the paper's table",
                  std::string("The published row for ") + paper.row.model +
                      ", and the same quantities as measured here on the strongest sink.",
                  {}, {}};
  section.tables.push_back(
      {"Published and measured",
       {"quantity", "published", "measured", ""},
       {{"sink layer (from 0)", std::to_string(paper.row.layer),
         paper.found ? std::to_string(paper.layer) : "–", verdict(paper.layer_agrees)},
        {"sink neurons", list_text(paper.row.neurons),
         paper.found ? list_text(paper.neurons) : "–", verdict(paper.neurons_agree)},
        {"repeats needed (median of the words)", std::to_string(paper.row.repeats),
         paper.median_count > 0 ? plain(paper.median_count) : "–",
         paper.median_count > 0 ? plain(ratio) + " of the published" : "not reached"},
        {"norm of the first token, before → without the neurons",
         "about " + plain(paper.row.norm) + " → " + plain(paper.row.norm_ablated),
         paper.found ? plain(paper.norm) + " → " + plain(paper.norm_ablated) : "–", ""}}});
  return section;
}

Finding paper_finding(const PageContext& context, const PaperComparison& paper) {
  const std::string repeats =
      "; repeats needed " + after_text(context.usual().name) + " " +
      (paper.median_count > 0 ? plain(paper.median_count) : std::string("not reached")) +
      " against " + std::to_string(paper.row.repeats) + ".";
  const std::string answer =
      !paper.found ? "No sink was found: nothing of the row is reproduced."
      : paper.neurons_agree
          ? "Layer and neurons are as published" + repeats
          : "Layer " + std::to_string(paper.layer) + " against " + std::to_string(paper.row.layer) +
                ", neurons " + list_text(paper.neurons) + " against " +
                list_text(paper.row.neurons) + repeats;
  return {std::string("Does it agree with the paper's row for ") + paper.row.model + "?", answer,
          "The strongest sink; the paper does not state how it counts repeats, ours is the median "
          "over the words of the half-way rule.",
          "paper"};
}

}  // namespace

void paper_page(const PageContext& context, Page& page) {
  const PaperComparison* paper = context.results.find<PaperComparison>();
  if (paper == nullptr) return;
  page.findings.push_back(paper_finding(context, *paper));
  page.sections.push_back(paper_section(*paper));
}

}  // namespace sinkref
