#include "measure/attention/panel.h"

namespace sinkref {

namespace {

void add_attention(const std::string& name, const std::vector<LayerAttention>& layers,
                   std::vector<NamedTensor>& all) {
  for (const LayerAttention& layer : layers) {
    const std::string prefix = "attention." + name + "." + std::to_string(layer.layer);
    all.push_back(vector_tensor(prefix + ".on_first", layer.on_first));
    all.push_back(vector_tensor(prefix + ".on_body", layer.on_body));
    all.push_back(vector_tensor(prefix + ".norm", layer.norm));
  }
}

}  // namespace

void attention_tensors(const Results& results, std::vector<NamedTensor>& all) {
  const AttentionResult& found = results.get<AttentionResult>();
  add_attention("text", found.text, all);
  add_attention("run", found.run, all);
}

}  // namespace sinkref
