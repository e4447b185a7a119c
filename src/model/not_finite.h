#pragma once

#include "sinkref/error.h"

namespace sinkref {

/// A run of finite weights came out NaN or infinite: it overflows, or what changes its activations is the cause.
class NotFinite : public InputError {
 public:
  using InputError::InputError;
};

}  // namespace sinkref
