#pragma once

#include "measure/panel.h"

// Does the paper's patch prevent it? The runs of the usual condition, original and patched.

namespace sinkref {

struct NextTokens {
  std::vector<NextToken> words;
};

void measure_patch(const Experiment& experiment, Results& results);
void patch_json(const Experiment&, const Results& results, bool with_curves,
                nlohmann::ordered_json& j);
void patch_page(const PageContext& context, Page& page);
void patch_text(const Experiment&, const Results& results);

}  // namespace sinkref
