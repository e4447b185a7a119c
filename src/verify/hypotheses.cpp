// The list of usual faults, those of embedding and output, and what all of them share.

#include "verify/hypotheses.h"

#include <algorithm>
#include <cmath>

namespace sinkref {

void on_blocks(Hooks<double>& hooks, const Place& place, HookPoint point,
               const std::function<void(const Activation<double>&)>& function) {
  for (size_t layer = place.first_block; layer < place.end_block; ++layer)
    if (place.holds(layer)) hooks.add({point, layer}, function);
}

double rounded(double value, NumberType type) {
  const float single = static_cast<float>(value);
  if (type == NumberType::fp32 || !std::isfinite(single)) return static_cast<double>(single);
  const int bits = type == NumberType::fp16 ? 11 : 8, lowest = type == NumberType::fp16 ? -24 : -133;
  int exponent = 0;
  std::frexp(single, &exponent);
  const int last = std::max(exponent - bits, lowest);
  return std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(single), -last)), last);
}

void add_head_faults(const Model& model, std::vector<Hypothesis>& all) {
  const ModelConfig& c = model.config();
  const double root = std::sqrt(static_cast<double>(c.hidden_size));
  Hypothesis scaled{"embedding_scale", "the embedding is multiplied by sqrt(hidden_size)",
                    HookPoint::Embed};
  scaled.before = [root](Hooks<double>& hooks, const Place&) {
    hooks.add({HookPoint::Embed, 0}, [root](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        for (size_t i = 0; i < a.width; ++i) a.row(r)[i] *= root;
    });
  };
  all.push_back(std::move(scaled));
  Hypothesis centred{"centred_logits",
                     "the logits' mean is taken off (TransformerLens's processing: load without it)",
                     HookPoint::Logits};
  centred.before = [](Hooks<double>& hooks, const Place&) {
    hooks.add({HookPoint::Logits, 0}, [](const Activation<double>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) {
        double mean = 0;
        for (size_t i = 0; i < a.width; ++i) mean += a.row(r)[i] / static_cast<double>(a.width);
        for (size_t i = 0; i < a.width; ++i) a.row(r)[i] -= mean;
      }
    });
  };
  all.push_back(std::move(centred));
  if (c.tied_output && !model.checkpoint().has("lm_head.weight")) return;  // its numbers are not ours
  Hypothesis tied{"tied_output",
                  c.tied_output ? "the output is lm_head, where the model ties it to the embedding"
                                : "the output is tied to the embedding, where the model has its lm_head",
                  HookPoint::Logits};
  tied.config = [](ModelConfig& config) { config.tied_output = !config.tied_output; };
  all.push_back(std::move(tied));
}

std::vector<Hypothesis> usual_faults(const Model& model, const Candidate& candidate,
                                     const VerifyOptions& options, Hook first) {
  std::vector<Hypothesis> all;
  add_head_faults(model, all);
  add_norm_faults(model, all);
  add_weight_faults(model, all);
  add_rope_faults(model, candidate, first, all);
  add_attention_faults(model, candidate, options, first, all);
  add_mlp_faults(all);
  add_patch_faults(model, candidate, options, first, all);
  return all;
}

}  // namespace sinkref
