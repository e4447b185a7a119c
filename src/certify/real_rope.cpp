#include "certify/real_rope.h"

#include "certify/exact_product.h"

namespace sinkref {

namespace {

Ball pi() {
  Ball x;
  arb_const_pi(x.get(), Ball::precision);
  return x;
}

/// True or false for every number in the balls.
bool surely_less(const Ball& a, const Ball& b) {
  if (arb_lt(a.get(), b.get())) return true;
  if (arb_ge(a.get(), b.get())) return false;
  throw TooFewBits();
}

/// modeling_rope_utils.py, _compute_llama3_parameters, without its roundings.
Ball llama3(const Ball& frequency, const RopeConfig& rope) {
  const Ball original(rope.original_max_positions), low(rope.low_freq_factor), high(rope.high_freq_factor);
  const Ball wavelength = Ball(2) * pi() / frequency;
  if (surely_less(wavelength, original / high)) return frequency;
  if (surely_less(original / low, wavelength)) return frequency / Ball(rope.factor);
  const Ball smooth = (original / wavelength - low) / (high - low);
  return (Ball(1) - smooth) * frequency / Ball(rope.factor) + smooth * frequency;
}

Ball frequency(const ModelConfig& config, size_t i) {
  const RopeConfig& rope = config.rope;
  const Ball exponent = -(Ball(static_cast<double>(2 * i)) / Ball(static_cast<double>(config.head_dim)));
  Ball f;
  arb_pow(f.get(), Ball(rope.theta).get(), exponent.get(), Ball::precision);
  if (rope.scaling == RopeScaling::Linear) f = f / Ball(rope.factor);
  if (rope.scaling == RopeScaling::Llama3) f = llama3(f, rope);
  if (!rope.freq_divisors.empty()) f = f / Ball(static_cast<double>(rope.freq_divisors[i]));
  return f;
}

}  // namespace

Matrix<Ball> real_rope(const ModelConfig& config, Matrix<Ball> x) {
  const size_t half = config.head_dim / 2;
  parallel_for(half, [&](size_t i) {
    const Ball per_position = frequency(config, i);
    for (size_t p = 0; p < x.rows; ++p) {
      const Ball angle = Ball(static_cast<double>(p)) * per_position;
      Ball sine, cosine;
      arb_sin_cos(sine.get(), cosine.get(), angle.get(), Ball::precision);
      for (size_t head = 0; head < x.cols; head += 2 * half) {
        const Ball a = x[p][head + i], b = x[p][head + half + i];
        x[p][head + i] = a * cosine - b * sine;
        x[p][head + half + i] = b * cosine + a * sine;
      }
    }
  });
  return x;
}

}  // namespace sinkref
