#include "sinkref/number.h"

namespace sinkref {

namespace {

// On |r| <= π/4, z = r²: minimax polynomials of (sin r - r)/r³ and (cos r - 1 + z/2)/z².
constexpr double sin_terms[] = {-0x1.5555555555555p-3,  0x1.1111111110bb1p-7,
                                -0x1.a01a019e8357dp-13, 0x1.71de37961e4c6p-19,
                                -0x1.ae600a926c89ap-26, 0x1.5e0af186af739p-33};
constexpr double cos_terms[] = {0x1.5555555555555p-5,   -0x1.6c16c16c16966p-10,
                                0x1.a01a019f4e867p-16,  -0x1.27e4fa17a41b4p-22,
                                0x1.1eeb68b109173p-29,  -0x1.907d7aebd5e3dp-37};

double horner(const double (&terms)[6], double z) {
  double sum = terms[5];
  for (int i = 4; i >= 0; --i) sum = std::fma(sum, z, terms[i]);
  return sum;
}

}  // namespace

CosSin cos_sin_spec(float angle) {
  // Quarter turns off; π/2 in two parts is enough below 2^22, far beyond any position.
  const double quarters = std::nearbyint(angle * 0x1.45f306dc9c883p-1);
  double r = std::fma(quarters, -0x1.921fb54442d18p+0, static_cast<double>(angle));
  r = std::fma(quarters, -0x1.1a62633145c07p-54, r);
  const double z = r * r;
  const double s = std::fma(r * z, horner(sin_terms, z), r);
  const double c = std::fma(z * z, horner(cos_terms, z), std::fma(z, -0.5, 1.0));
  switch (static_cast<int64_t>(quarters) & 3) {
    case 0: return {static_cast<float>(c), static_cast<float>(s)};
    case 1: return {static_cast<float>(-s), static_cast<float>(c)};
    case 2: return {static_cast<float>(-c), static_cast<float>(-s)};
    default: return {static_cast<float>(s), static_cast<float>(-c)};
  }
}

}  // namespace sinkref
