#pragma once

#include <vector>

#include "certify/ball.h"
#include "sinkref/config.h"
#include "sinkref/tensor.h"

namespace sinkref {

/// RoPE with the angle as a real number: position · theta^(-2i/h), scaled as the configuration says (linear, or
/// Llama 3.1's bands), where definition.h takes Hugging Face's fp32 table. x (p, heads·h), from position 0 on.
Matrix<Ball> real_rope(const ModelConfig& config, Matrix<Ball> x);

}  // namespace sinkref
