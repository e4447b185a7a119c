// info: what a model's files say.

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "cli/commands.h"
#include "cli/output.h"
#include "sinkref/kernels.h"
#include "sinkref/model.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

std::string rope_text(const RopeConfig& rope) {
  char theta[32];
  std::snprintf(theta, sizeof theta, "theta %g", rope.theta);
  std::string text = theta;
  if (rope.scaling == RopeScaling::Linear)
    text += ", linear scaling by " + std::to_string(rope.factor);
  if (rope.scaling == RopeScaling::Llama3)
    text += ", llama3 scaling by " + std::to_string(rope.factor);
  // The file holds fp32 divisors of inv_freq: config.json's four numbers give other last bits.
  if (!rope.freq_divisors.empty()) text += ", divided by the rounded factors of rope_freqs.weight";
  return text;
}

ordered_json describe(const Model& model) {
  const ModelConfig& c = model.config();
  uint64_t parameters = 0, bytes = 0;
  std::map<std::string, uint64_t> dtypes;
  const auto needed = model.needed_tensors();
  for (const Model::Needed& tensor : needed) {
    const StoredTensor& stored = model.checkpoint().tensor(tensor.name, tensor.shape);
    uint64_t elements = 1;
    for (uint64_t extent : tensor.shape) elements *= extent;
    parameters += elements;
    bytes += stored.bytes;
    ++dtypes[dtype_info(stored.dtype).name];
  }
  ordered_json j = {{"model", c.model_type},
                    {"parameters", parameters},
                    {"tensors", needed.size()},
                    {"dtypes", dtypes},
                    {"weight_bytes", bytes},
                    {"cache_bytes_per_token", c.cache_bytes_per_token()},
                    {"vocab_size", c.vocab_size},
                    {"hidden_size", c.hidden_size},
                    {"intermediate_size", c.intermediate_size},
                    {"layers", c.layers},
                    {"heads", c.heads},
                    {"kv_heads", c.kv_heads},
                    {"head_dim", c.head_dim},
                    {"max_positions", c.max_positions},
                    {"sliding_window", nullptr},
                    {"rope", rope_text(c.rope)},
                    {"rms_norm_eps", c.rms_norm_eps},
                    {"attention_bias", c.attention_bias},
                    {"mlp_bias", c.mlp_bias},
                    {"tied_output", c.tied_output},
                    {"kernels", available_kernels()}};
  if (c.sliding_window) j["sliding_window"] = *c.sliding_window;
  if (!c.notes.empty()) j["notes"] = c.notes;
  return j;
}

struct InfoCommand : Command {
  OptionTable table() override { return {}; }
  int run() const override;
};

}  // namespace

int InfoCommand::run() const {
  const ordered_json j = describe(Model::open(model));
  if (json) {
    std::cout << json_text(j) << '\n';
    return 0;
  }
  for (const auto& [key, value] : j.items())
    std::cout << key << std::string(24 - std::min<size_t>(23, key.size()), ' ')
              << (value.is_string() ? value.get<std::string>() : value.dump()) << '\n';
  return 0;
}

std::unique_ptr<Command> make_info() { return std::make_unique<InfoCommand>(); }

}  // namespace sinkref::cli
