#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

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

/// Rows of balls by reference: (rows, cols), where nothing stands for zero.
struct BallTable {
  size_t rows, cols;
  std::vector<const Ball*> entries;

  BallTable(size_t rows, size_t cols) : rows(rows), cols(cols), entries(rows * cols, nullptr) {}
  const Ball*& at(size_t r, size_t c) { return entries[r * cols + c]; }
  const Ball* at(size_t r, size_t c) const { return entries[r * cols + c]; }
};

/// put(p, n, Σ x(p, i)·w(n, i)) for the n of wanted(p).
void exact_chains(const BallTable& x, const BallTable& w, const std::function<Visible(size_t p)>& wanted,
                  const std::function<void(size_t p, size_t n, const Ball& sum)>& put);

/// The page's three products of matrices, for balls.
namespace definition {
template <>
Matrix<Ball> linear(const Matrix<Ball>& x, const StoredMatrix& w, std::span<const float> b);
template <>
Matrix<Ball> scores(const Matrix<Ball>& q, size_t at_q, const Matrix<Ball>& k, size_t at_k, Ball scale, size_t h, Mask seen);
template <>
void weigh(const Matrix<Ball>& pattern, const Matrix<Ball>& v, size_t at_v, size_t h, Mask seen, Matrix<Ball>& z, size_t at_z);
}  // namespace definition

}  // namespace sinkref
