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

Turns real_turns(const ModelConfig& config, size_t positions) {
  const size_t half = config.head_dim / 2;
  Turns turns{Matrix<Ball>(positions, half), Matrix<Ball>(positions, half)};
  parallel_for(half, [&](size_t i) {
    const Ball per_position = frequency(config, i);
    for (size_t p = 0; p < positions; ++p) {
      const Ball angle = Ball(static_cast<double>(p)) * per_position;
      arb_sin_cos(turns.sines[p][i].get(), turns.cosines[p][i].get(), angle.get(), Ball::precision);
    }
  });
  return turns;
}

Matrix<Ball> rotated(Matrix<Ball> x, const Turns& turns) {
  const size_t half = turns.cosines.cols;
  parallel_for(x.rows, [&](size_t p) {
    for (size_t head = 0; head < x.cols; head += 2 * half)
      for (size_t i = 0; i < half; ++i) {
        const Ball a = x[p][head + i], b = x[p][head + half + i];
        x[p][head + i] = a * turns.cosines[p][i] - b * turns.sines[p][i];
        x[p][head + half + i] = b * turns.cosines[p][i] + a * turns.sines[p][i];
      }
  });
  return x;
}

}  // namespace sinkref
