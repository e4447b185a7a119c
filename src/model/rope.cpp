// Rotary frequencies. Hugging Face computes them in fp32, and its rounding is part of the model:
// correcting it moves the logits of long repeated runs by 1e-3.

#include <cmath>

#include "sinkref/model.h"

namespace sinkref {

namespace {

/// PyTorch's vector pow is good to 1 ulp only. Where it misses the correctly rounded power, its
/// reciprocal as recorded from PyTorch 2.13 (CPU), for the bases and head sizes in use.
struct Recorded {
  double theta;
  size_t head_dim;
  size_t index;
  float inv_freq;
};
#include "model/rope_recorded.inc"

float base_inv_freq(double theta, size_t head_dim, size_t index) {
  for (const Recorded& r : recorded)
    if (r.theta == theta && r.head_dim == head_dim && r.index == index) return r.inv_freq;
  const float exponent = static_cast<float>(2 * index) / static_cast<float>(head_dim);
  const float power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  return 1.0f / power;
}

/// Llama 3.1's bands: long wavelengths are stretched by `factor`, short ones kept, and those
/// between blended (modeling_rope_utils.py, _compute_llama3_parameters; all tensors fp32, scalars
/// rounded to fp32 where they meet one).
float llama3(float inv_freq, const RopeConfig& rope) {
  const float pi2 = static_cast<float>(2 * M_PI);
  const float wavelength = pi2 / inv_freq;
  const double low = rope.original_max_positions / rope.low_freq_factor;
  const double high = rope.original_max_positions / rope.high_freq_factor;
  const float factor = static_cast<float>(rope.factor);
  const float scaled = wavelength > static_cast<float>(low) ? inv_freq / factor : inv_freq;
  const bool between =
      !(wavelength < static_cast<float>(high)) && !(wavelength > static_cast<float>(low));
  if (!between) return scaled;
  const float top = static_cast<float>(rope.original_max_positions) / wavelength -
                    static_cast<float>(rope.low_freq_factor);
  const float smooth = top / static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  return (1.0f - smooth) * scaled / factor + smooth * scaled;
}

}  // namespace

std::vector<float> rope_inv_freq(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  std::vector<float> inv_freq(config.head_dim / 2);
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    float f = base_inv_freq(rope.theta, config.head_dim, i);
    if (rope.scaling == RopeScaling::Linear) f = f / static_cast<float>(rope.factor);
    if (rope.scaling == RopeScaling::Llama3) f = llama3(f, rope);
    if (!rope.freq_divisors.empty()) f = f / rope.freq_divisors[i];
    inv_freq[i] = f;
  }
  return inv_freq;
}

}  // namespace sinkref
