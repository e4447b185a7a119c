#pragma once

// A real number enclosed: a midpoint of many bits and a radius that provably covers the error (Arb's arb_t;
// Johansson 2017). It is the third number that definition.h is read with. Every function here is Arb's own,
// but for the products of matrices, which exact_product.cpp proves.

#if __has_include(<flint/arb.h>)
#include <flint/arb.h>
#else
#include <arb.h>
#endif

#include "base/threads.h"
#include "sinkref/number.h"

namespace sinkref {

class Ball {
 public:
  /// The bits that midpoints are rounded to. Set between the steps of a model, never inside a parallel loop.
  static inline long precision = 64;

  Ball() { arb_init(value_); }
  Ball(double x) : Ball() { arb_set_d(value_, x); }
  Ball(const Ball& other) : Ball() { arb_set(value_, other.value_); }
  Ball(Ball&& other) noexcept : Ball() { arb_swap(value_, other.value_); }
  ~Ball() { arb_clear(value_); }
  Ball& operator=(const Ball& other) {
    arb_set(value_, other.value_);
    return *this;
  }
  Ball& operator=(Ball&& other) noexcept {
    arb_swap(value_, other.value_);
    return *this;
  }

  arb_ptr get() { return value_; }
  arb_srcptr get() const { return value_; }
  arf_srcptr middle() const { return arb_midref(value_); }
  mag_srcptr radius() const { return arb_radref(value_); }
  bool exact() const { return mag_is_zero(radius()); }

  friend Ball operator+(const Ball& a, const Ball& b) { return made(arb_add, a, b); }
  friend Ball operator-(const Ball& a, const Ball& b) { return made(arb_sub, a, b); }
  friend Ball operator*(const Ball& a, const Ball& b) { return made(arb_mul, a, b); }
  friend Ball operator/(const Ball& a, const Ball& b) { return made(arb_div, a, b); }
  friend Ball operator-(Ball a) {
    arb_neg(a.value_, a.value_);
    return a;
  }
  /// Which middle is smaller: no statement about the numbers. Softmax picks what it subtracts by it.
  friend bool operator<(const Ball& a, const Ball& b) { return arf_cmp(a.middle(), b.middle()) < 0; }

 private:
  template <class F>
  static Ball made(F f, const Ball& a, const Ball& b) {
    Ball y;
    f(y.value_, a.value_, b.value_, precision);
    return y;
  }
  arb_t value_;
};

/// The middle alone, an exact number.
inline Ball centre(Ball x) {
  mag_zero(arb_radref(x.get()));
  return x;
}

template <>
struct Number<Ball> {
  using Wide = Ball;
  static const Ball& wide(const Ball& x) { return x; }
  static Ball narrow(Ball x) { return x; }
  static Ball sqrt(Ball x) {
    arb_sqrt(x.get(), x.get(), Ball::precision);
    return x;
  }
  static Ball fma(const Ball& a, const Ball& b, Ball c) {
    arb_addmul(c.get(), a.get(), b.get(), Ball::precision);
    return c;
  }
  static Ball exp(Ball x) {
    arb_exp(x.get(), x.get(), Ball::precision);
    return x;
  }
};

template <>
struct Rows<Ball> {
  template <class F>
  static void each(size_t count, const F& f) {
    parallel_for(count, f);
  }
};

}  // namespace sinkref
