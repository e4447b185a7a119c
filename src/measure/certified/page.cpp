// What is proved of the findings above it.

#include <algorithm>

#include "measure/certified/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

struct Count {
  size_t proved = 0, disproved = 0, undecided = 0, left_out = 0;  ///< claims; left out: runs
};

Count count_of(const std::vector<CertifiedRun>& runs) {
  Count count;
  for (const CertifiedRun& run : runs) {
    count.left_out += !run.left_out.empty();
    for (const ClaimResult& claim : run.claims)
      ++(claim.proof == Proof::proved      ? count.proved
         : claim.proof == Proof::disproved ? count.disproved
                                           : count.undecided);
  }
  return count;
}

std::string prompt_of(const CertifiedRun& run) {
  std::string text = std::to_string(run.tokens.size()) + (run.tokens.size() == 1 ? " token" : " tokens");
  if (!run.patch.empty()) text += ", patch " + neurons_text(run.patch);
  if (!run.ablation.empty()) text += ", ablated " + neurons_text(run.ablation);
  return text;
}

Section certified_section(const std::vector<CertifiedRun>& runs) {
  Section section{"certified",
                  "What is proved",
                  "The figures of this page are those of fp32 runs. Here the comparisons on which they rest are made "
                  "again with real numbers: every activation is enclosed by a ball that provably contains it, and a "
                  "comparison is proved if it holds for all numbers in the balls. original: is the run without the "
                  "patch or the ablation. report.json has the prompts' ids.",
                  {}, {}};
  Table table{"Decisive comparisons", {"layer", "about", "claim", "verdict", "left", "right", "prompt"}, {}};
  for (const CertifiedRun& run : runs) {
    for (const ClaimResult& claim : run.claims)
      table.rows.push_back({std::to_string(run.layer), run.about, claim.text, proof_name(claim.proof), claim.left,
                            claim.right, prompt_of(run)});
    if (!run.left_out.empty())
      table.rows.push_back({std::to_string(run.layer), run.about, "–", "left out: " + run.left_out, "", "", prompt_of(run)});
  }
  section.tables.push_back(std::move(table));
  return section;
}

Finding certified_finding(const std::vector<CertifiedRun>& runs) {
  const Count count = count_of(runs);
  const size_t all = count.proved + count.disproved + count.undecided;
  std::string answer = std::to_string(count.proved) + " of " + std::to_string(all) +
                       " decisive comparisons are proved for the real numbers that the activations are, " +
                       std::to_string(count.disproved) + " disproved, " + std::to_string(count.undecided) + " undecided.";
  if (count.left_out > 0)
    answer += " Left out: " + std::to_string(count.left_out) + " of " + std::to_string(runs.size()) + " runs.";
  return {"Which of this is proved?", answer,
          "Balls of real numbers through the whole model; what is proved, of which function and under what assumptions "
          "is a page of the guide (certified).",
          "certified"};
}

}  // namespace

void certified_page(const PageContext& context, Page& page) {
  const CertifiedClaims* certified = context.results.find<CertifiedClaims>();
  if (certified == nullptr || certified->runs.empty()) return;
  page.findings.push_back(certified_finding(certified->runs));
  page.sections.push_back(certified_section(certified->runs));
}

}  // namespace sinkref
