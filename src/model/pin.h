#pragma once

#include "sinkref/hooks.h"

namespace sinkref {

/// Pins one number of a row: position `at` of a prompt gives the value, every later position gets it.
template <class T>
void pin_element(Hook hook, const Row& row, size_t element, size_t at, T& x);

}  // namespace sinkref
