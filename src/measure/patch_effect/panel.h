#pragma once

#include "measure/patch_effect/patch_effect.h"
#include "measure/panel.h"

// What else than the patch can be pinned, and what each costs on ordinary text.

namespace sinkref {

nlohmann::ordered_json to_json(const PatchEffect& effect, bool with_curves);

void measure_patch_effect(const Experiment& experiment, Results& results);
double patch_effect_work(const Experiment& experiment, const Results& results);
void patch_effect_json(const Experiment&, const Results& results, bool with_curves,
                       nlohmann::ordered_json& j);
void patch_effect_page(const PageContext& context, Page& page);
void patch_effect_text(const Experiment& experiment, const Results& results);

}  // namespace sinkref
