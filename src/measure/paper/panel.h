#pragma once

#include "measure/paper/published.h"
#include "measure/panel.h"

// Does the model agree with its row of the paper's table?

namespace sinkref {

void measure_paper(const Experiment& experiment, Results& results);
void paper_json(const Experiment&, const Results& results, bool with_curves,
                nlohmann::ordered_json& j);
void paper_page(const PageContext& context, Page& page);

}  // namespace sinkref
