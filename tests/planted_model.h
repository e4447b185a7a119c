#pragma once

#include <cmath>
#include <cstdint>
#include <utility>

#include "checkpoint_builder.h"
#include "measure/stimuli/stimuli.h"
#include "sinkref/model.h"

namespace sinkref {

/// A model of 2 layers and 32 tokens whose sink is known, for it is written down here. Axis 0 of the
/// residual stream says "this is token 0", the BOS; axis 1 is what the sink's neurons write. Nothing
/// but the embedding of token 0 and the decoy writes axis 0.
///     layer 0, neuron 2: answers to token 0 alone, but adds little (a first detector, no sink)
///     layer 1, `neurons`: answer to token 0 alone and add 1000 together, in the shares given
/// All other weights are small and random.
struct PlantedModel {
  static constexpr size_t width = 8, mlp = 12, vocabulary = 32, decoy = 2;
  static constexpr double sink_norm = 1000;

  /// (neuron, share of the norm); empty: a model without a sink.
  explicit PlantedModel(const std::vector<std::pair<size_t, double>>& neurons) {
    embedding();
    for (size_t layer = 0; layer < 2; ++layer) {
      std::vector<float> gate = small(mlp * width, 0.3), up = small(mlp * width, 0.3),
                         down = small(width * mlp, 0.01);
      // No other neuron reads or writes what is planted.
      for (size_t n = 0; n < mlp; ++n) gate[n * width] = up[n * width] = down[n] = down[mlp + n] = 0;
      const auto plant = [&](size_t neuron, size_t writes, double norm) {
        for (size_t i = 0; i < width; ++i) {
          gate[neuron * width + i] = up[neuron * width + i] = i == 0 ? 2.0f : 0.0f;
          down[i * mlp + neuron] = 0;
        }
        // Token 0 alone on axis 0: its normalized value is about √d, its gate is open.
        const double x = 2 * std::sqrt(double(width));
        down[writes * mlp + neuron] = static_cast<float>(norm / (x * x));
      };
      if (layer == 0) plant(decoy, 0, 0.2);
      else
        for (const auto& [neuron, share] : neurons) plant(neuron, 1, share * sink_norm);
      add_layer(layer, gate, up, down);
    }
    add("model.norm.weight", {width}, std::vector<float>(width, 1.0f));
    add("lm_head.weight", {vocabulary, width}, small(vocabulary * width, 0.5));
    nlohmann::json config = tiny_config();
    config["num_hidden_layers"] = 2;
    config["vocab_size"] = vocabulary;
    config["bos_token_id"] = 0;
    folder_.write("config.json", config.dump());
    folder_.write("model.safetensors", safetensors_file(tensors_));
  }

  Model open() const { return Model::open(folder_.path()); }

 private:
  float uniform(double scale) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(scale * (double(state_ >> 40) / double(1 << 23) - 1));
  }
  std::vector<float> small(size_t n, double scale) {
    std::vector<float> values(n);
    for (float& value : values) value = uniform(scale);
    return values;
  }
  void add(const std::string& name, const std::vector<uint64_t>& shape,
           const std::vector<float>& values) {
    tensors_.push_back({name, "F32", shape, raw_floats(values)});
  }
  void embedding() {
    std::vector<float> rows = small(vocabulary * width, 1);
    for (size_t token = 0; token < vocabulary; ++token)
      for (size_t i = 0; i < width; ++i)
        if (token == 0 || i < 2) rows[token * width + i] = token == 0 && i == 0 ? 1.0f : 0.0f;
    add("model.embed_tokens.weight", {vocabulary, width}, rows);
  }
  void add_layer(size_t layer, const std::vector<float>& gate, const std::vector<float>& up,
                 const std::vector<float>& down) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const std::vector<float> ones(width, 1.0f);
    add(prefix + "input_layernorm.weight", {width}, ones);
    add(prefix + "post_attention_layernorm.weight", {width}, ones);
    add(prefix + "self_attn.q_proj.weight", {width, width}, small(width * width, 0.3));
    add(prefix + "self_attn.k_proj.weight", {width / 2, width}, small(width / 2 * width, 0.3));
    add(prefix + "self_attn.v_proj.weight", {width / 2, width}, small(width / 2 * width, 0.3));
    std::vector<float> out = small(width * width, 0.02);
    std::fill(out.begin(), out.begin() + 2 * width, 0.0f);  // attention leaves axes 0 and 1 alone
    add(prefix + "self_attn.o_proj.weight", {width, width}, out);
    add(prefix + "mlp.gate_proj.weight", {mlp, width}, gate);
    add(prefix + "mlp.up_proj.weight", {mlp, width}, up);
    add(prefix + "mlp.down_proj.weight", {width, mlp}, down);
  }

  TempDir folder_;
  std::vector<BuiltTensor> tensors_;
  uint64_t state_ = 7;
};

/// A short text of its vocabulary and a run of 12.
inline StimulusChoice planted_stimuli() {
  StimulusChoice choice;
  choice.ids = {0, 5, 9, 17, 22, 9, 30, 11, 4};
  choice.repeats = 12;
  return choice;
}

}  // namespace sinkref
