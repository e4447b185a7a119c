#pragma once

#include "measure/panel.h"

// Asked to repeat a word, does the model go on repeating it? Continuations of the runs.

namespace sinkref {

void repeat_task_json(const Experiment&, const Results& results, bool with_curves,
                      nlohmann::ordered_json& j);
void repeat_task_page(const PageContext& context, Page& page);

}  // namespace sinkref
