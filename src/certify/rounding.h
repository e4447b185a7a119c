#pragma once

#include <string>

#include "certify/ball.h"

namespace sinkref {

/// What fp32 makes of every number in a ball: to nearest, ties to even, subnormals kept, infinity past the
/// largest. A zero has no sign.
struct Rounded {
  float value;   ///< that of the middle if it is undecided
  bool decided;  ///< every number in the ball rounds to `value`
  bool tie;      ///< the number is known, and lies halfway between two of fp32
};
Rounded round_to_fp32(const Ball& x);

/// The fp32 number nearest to an exact number that is finite.
float nearest_fp32(arf_srcptr x);

/// "1f3 -4a": a finite number as an integer and an exponent of two, both in hexadecimal.
std::string exact_text(arf_srcptr x);

/// An upper bound of a magnitude, as "1.6e-209": two digits, rounded up.
std::string magnitude_text(mag_srcptr x);

}  // namespace sinkref
