#pragma once

#include <vector>

#include "certify/ball.h"
#include "sinkref/config.h"
#include "sinkref/tensor.h"

namespace sinkref {

/// RoPE's cos and sin, each (p, h/2), for positions from 0 on.
struct Turns {
  Matrix<Ball> cosines, sines;
};

/// Of the angle as a real number: position · theta^(-2i/h), scaled as the configuration says (linear, or Llama 3.1's
/// bands), where definition.h takes fp32 numbers.
Turns real_turns(const ModelConfig& config, size_t positions);

/// rope() of definition.h with these. x (p, heads·h), from position 0 on.
Matrix<Ball> rotated(Matrix<Ball> x, const Turns& turns);

}  // namespace sinkref
