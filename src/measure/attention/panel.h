#pragma once

#include "measure/attention/attention_masses.h"
#include "measure/panel.h"

// Where does attention go, in ordinary text and along a run?

namespace sinkref {

/// The text and one run, at the layers of attention_layers().
struct AttentionResult {
  std::vector<LayerAttention> text, run;
  std::vector<size_t> text_positions, run_positions;  ///< of the scores
  std::string word, condition;
  size_t run_begins = 0;  ///< position of the first repeat
};

void watch_attention(const Experiment& experiment, Results& results, Hooks<float>& hooks);
void measure_attention(const Experiment& experiment, Results& results);
double attention_work(const Experiment& experiment, const Results& results);
void attention_json(const Experiment&, const Results& results, bool with_curves,
                    nlohmann::ordered_json& j);
void attention_page(const PageContext& context, Page& page);
void attention_tensors(const Results& results, std::vector<NamedTensor>& all);

}  // namespace sinkref
