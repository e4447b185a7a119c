#include "certify/rounding.h"

#include <cmath>
#include <limits>

namespace sinkref {

namespace {

constexpr long lowest_bit = -149;  // of a subnormal number
constexpr long significand_bits = 24;

/// The bits of fp32 that a number below 2^exponent has; 0 or fewer for what lies below all of them.
long bits_at(long exponent) { return std::min(significand_bits, exponent - lowest_bit); }

/// Halfway between two neighbours of fp32.
bool is_tie(arf_srcptr x) {
  if (!arf_is_finite(x) || arf_is_zero(x)) return false;
  const long bits = bits_at(ARF_EXP(x));
  if (bits < 0 || arf_cmpabs_2exp_si(x, 128) >= 0) return false;
  return arf_bits(x) == bits + 1;  // one bit more than there is room for, and that one is set
}

Rounded by_ends(const Ball& x) {
  arf_t low, high;
  arf_init(low);
  arf_init(high);
  if (x.exact()) {
    arf_set(low, x.middle());
    arf_set(high, x.middle());
  } else {
    arb_get_interval_arf(low, high, x.get(), Ball::precision + 64);
  }
  const bool known = arf_is_finite(low) && arf_is_finite(high);
  const float below = known ? nearest_fp32(low) : 0, above = known ? nearest_fp32(high) : 0;
  const bool decided = known && below == above;
  const float middle = arf_is_finite(x.middle()) ? nearest_fp32(x.middle()) : std::numeric_limits<float>::quiet_NaN();
  const bool tie = decided && x.exact() && is_tie(x.middle());
  arf_clear(low);
  arf_clear(high);
  return {decided ? below : middle, decided, tie};
}

}  // namespace

float nearest_fp32(arf_srcptr x) {
  if (arf_is_zero(x)) return 0;
  const float sign = arf_sgn(x) < 0 ? -1 : 1;
  if (arf_cmpabs_2exp_si(x, 128) >= 0) return sign * std::numeric_limits<float>::infinity();
  if (arf_cmpabs_2exp_si(x, lowest_bit - 1) <= 0) return 0;  // the tie itself goes to 0, which is even
  const long bits = bits_at(ARF_EXP(x));
  if (bits <= 0) return sign * std::numeric_limits<float>::denorm_min();
  arf_t rounded;
  arf_init(rounded);
  arf_set_round(rounded, x, bits, ARF_RND_NEAR);
  const double value = arf_get_d(rounded, ARF_RND_NEAR);
  arf_clear(rounded);
  return static_cast<float>(value);  // exact, or 2^128, which is infinity
}

Rounded round_to_fp32(const Ball& x) {
  if (arf_is_inf(x.middle()) && x.exact())
    return {static_cast<float>(arf_get_d(x.middle(), ARF_RND_NEAR)), true, false};
  // In double first: its ends decide all but one in 2^27.
  if (arf_is_finite(x.middle()) && !COEFF_IS_MPZ(MAG_EXP(x.radius())) && MAG_EXP(x.radius()) < 200 && !x.exact()) {
    const double middle = arf_get_d(x.middle(), ARF_RND_NEAR);
    const double radius = MAG_EXP(x.radius()) < -900 ? 0 : mag_get_d(x.radius());
    // The rounding of `middle` and of these sums, and what is too small for a double.
    const double error = radius + (std::fabs(middle) + radius) * 0x1p-50 + 0x1p-890;
    const auto low = static_cast<float>(middle - error), high = static_cast<float>(middle + error);
    if (low == high) return {low + 0.0f, true, false};
  }
  return by_ends(x);
}

std::string exact_text(arf_srcptr x) {
  char* text = arf_dump_str(x);
  std::string copy = text;
  flint_free(text);
  return copy;
}

std::string magnitude_text(mag_srcptr x) {
  if (mag_is_zero(x)) return "0";
  if (mag_is_inf(x)) return "inf";
  // x <= d · 10^e with 1 <= d < 10 of two digits, by integers.
  const double log10 = mag_get_d_log2_approx(x) * 0.30102999566398120;
  for (long e = static_cast<long>(std::floor(log10)) - 1;; ++e)
    for (long tenths = 10; tenths < 100; ++tenths) {
      Ball bound(10), value;
      const fmpz power = e - 1;
      arb_pow_fmpz(bound.get(), bound.get(), &power, 128);
      arb_mul_si(bound.get(), bound.get(), tenths, 128);
      arf_set_mag(arb_midref(value.get()), x);
      if (arb_le(value.get(), bound.get()))
        return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + "e" + std::to_string(e);
    }
}

}  // namespace sinkref
