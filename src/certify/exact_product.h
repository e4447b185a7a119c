#pragma once

#include <stdexcept>
#include <string>

#include "certify/ball.h"
#include "sinkref/definition.h"
#include "sinkref/kernels.h"

namespace sinkref {

/// Balls have grown until they say nothing: begin again with a higher precision.
struct TooFewBits : std::runtime_error {
  TooFewBits() : std::runtime_error("the balls' radii outgrew their middles") {}
};

/// Whose fp64 products are used: every one of Kernels gives the same bytes. Throws InputError for an unknown name.
void set_product_kernel(const std::string& name);

/// Throws std::logic_error unless `terms` products of integers of `x_bits` and of `w_bits` bits add up to no more
/// than 2^53.
void require_exact_sums(size_t terms, long x_bits, long w_bits);

/// y (rows, outputs) = x (rows, terms) · wᵀ of integers, checked: throws std::logic_error if a kernel's sums are
/// not the exact ones.
void checked_product(const double* x, size_t rows, size_t terms, const float* w, size_t outputs, double* y,
                     const Kernels<double>& kernels);

namespace definition {
template <>
Matrix<Ball> linear(const Matrix<Ball>& x, const StoredMatrix& w, std::span<const float> b);
}  // namespace definition

}  // namespace sinkref
