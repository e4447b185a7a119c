#include "measure/patch_effect/patch_effect.h"

#include <algorithm>
#include <cmath>

#include "measure/patch_effect/parts.h"
#include "sinkref/error.h"

namespace sinkref {

void add_intervention(const Intervention& intervention, const std::vector<Neurons>& neurons,
                      Hooks<float>& hooks) {
  if (intervention.patch) add_patch(neurons, hooks, *intervention.patch);
  if (intervention.ablate) add_ablation(neurons, hooks);
}

PatchEffect measure_patch_effect(const Model& model, const RunOptions& options,
                                 const PatchEffectInputs& inputs, const Step& step) {
  if (inputs.neurons.empty()) throw InputError("there is no patch to look at; name its neurons");
  PatchEffect effect;
  effect.neurons = inputs.neurons;
  for (const PatchEffectInputs::Run& run : inputs.runs) {
    step("the patch along " + run.name);
    effect.runs.push_back(measure_run(model, options, inputs, run));
  }
  if (!inputs.text.empty()) {
    step("the patch on " + std::to_string(inputs.text.size()) + " pieces of ordinary text");
    measure_text(model, options, inputs, effect);
  }
  return effect;
}

}  // namespace sinkref
