// Products of matrices of balls. This file is the one piece of arithmetic that is not Arb's and so is to be proved.
//
// What is claimed. For balls x(p, i) and w(n, i), and any real numbers x' and w' inside them, the ball y(p, n) that
// is returned contains Σᵢ x'(p, i)·w'(n, i) (+ b(n)). Weights of a checkpoint are balls of radius 0.
//
// 1  Fixed point. A row's middles are cut into digits: with |m(i)| < 2^e for all i of the row, D digits of β bits and
//    the unit 2^C, C = e - Dβ,
//        X(i) = ⌊|m(i)| / 2^C⌋ · sign m(i) = Σₐ X(i,a)·2^(βa),   0 <= a < D,   |X(i,a)| < 2^β,
//    and |x'(i) - 2^C·X(i)| <= r(i) + [m(i) was cut]·2^C. This error is rounded up to integers E(i) <= 2^β of a
//    unit of the row's own, 2^F. A row of W likewise, with the unit 2^L; a row of weights of at most 30 bits is one
//    digit of γ bits, without an error.
// 2  Exact sums. A product of a digit of β bits and one of γ bits is an integer of at most 2^(β+γ). A sum of n of
//    them, in any order, and each partial sum of it, is an integer of at most n·2^(β+γ) <= 2^53
//    (require_exact_sums): a number of fp64, so that no rounding ever takes place, with fused multiply-adds or
//    without, whoever computes it. checked_product() does not take a kernel's word for that: for every row, the sum
//    of its outputs must equal the row times the sum of all of W's rows, modulo 2^64.
// 3  The middle.  Σᵢ X(i)·W(i) = Σₛ 2^(βs)·Y(s),  Y(s) = Σ_{a+b=s} Σᵢ X(i,a)·W(i,b), added in int64 and carried
//    from digit to digit, is an exact integer; times 2^(C+L) it is the middle, which arb_set_round rounds, with its
//    error. Attention leaves the places s < s₀ off: |Y(s)| <= (s+1)·n·2^(2β), so that these are less than
//    2·s₀·n·2^(β(s₀+1)) units together, which the radius takes.
// 4  The radius.  |Σ x'w' - 2^(C+L)·Σ XW| <= Σ |2^C·X|·|δw| + |δx|·(|2^L·W| + |δw|), each factor rounded up to
//    integers of at most 2^β or 2^γ: again sums that are exact. For weights δw = 0, and one product is left.
//    Integers become a mag_t by mag_set_ui_2exp_si, which rounds up.
//
// So the bytes of a result depend on neither kernel, order, threads nor the rows beside it.

#include "certify/exact_product.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "sinkref/error.h"

namespace sinkref {

namespace {

constexpr long bits_of_double = 53;
constexpr long guard_bits = 8;         // how far below its radius a row is still read
constexpr long widest_digit = 24;      // W's digits are stored as fp32
constexpr long widest_weight = 30;     // a row of weights that is taken as one digit
constexpr long narrowest_digit = 11;
constexpr double worst_relative_radius = -10;  // log2; beyond, nothing can be learned
constexpr long largest_exponent = 1L << 40;
constexpr size_t most_digit_rows = 2048;       // of x at a time
constexpr size_t panel_bytes = size_t{48} << 20;
// Attention's products in pieces that stay in the cache: rows of x, of w, and terms.
constexpr size_t block_rows = 32, block_outputs = 64, block_terms = 128;
constexpr size_t most_digits = 127;  // of attention's rows, so that their places fit int64

const Kernels<double>* product_kernels = nullptr;

const Kernels<double>& kernels() {
  if (product_kernels == nullptr) set_product_kernel("auto");
  return *product_kernels;
}

long ceil_log2(size_t n) { return n <= 1 ? 0 : std::bit_width(n - 1); }

template <class Integer>
Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}

/// 2^(e-1) <= x < 2^e
long exponent(mag_srcptr x) {
  if (mag_is_inf(x) || COEFF_IS_MPZ(MAG_EXP(x)) || std::abs(MAG_EXP(x)) > largest_exponent) throw TooFewBits();
  return MAG_EXP(x);
}
long exponent(arf_srcptr x) {
  if (!arf_is_finite(x) || COEFF_IS_MPZ(ARF_EXP(x)) || std::abs(ARF_EXP(x)) > largest_exponent) throw TooFewBits();
  return ARF_EXP(x);
}

class Magnitude {
 public:
  Magnitude() { mag_init(value_); }
  Magnitude(const Magnitude& other) : Magnitude() { mag_set(value_, other.value_); }
  Magnitude& operator=(const Magnitude& other) {
    mag_set(value_, other.value_);
    return *this;
  }
  ~Magnitude() { mag_clear(value_); }
  mag_ptr get() { return value_; }
  mag_srcptr get() const { return value_; }

 private:
  mag_t value_;
};

// --- 1: fixed point ---------------------------------------------------------------------------------------------

/// What decides how a row is cut; it says how far, not what is true.
struct Reach {
  long top = 0;   ///< |middle| < 2^top; 0 for a row of zeros
  long bits = 1;  ///< that are worth reading below it
};

Reach reach_of(const Ball* const* row, size_t n) {
  long top = 0, widest = 0;
  bool zero = true, exact = true;
  for (size_t i = 0; i < n; ++i) {
    if (row[i] == nullptr) continue;
    if (!arf_is_zero(row[i]->middle())) {
      const long e = exponent(row[i]->middle());
      top = zero ? e : std::max(top, e);
      zero = false;
    }
    if (!row[i]->exact()) {
      const long e = exponent(row[i]->radius());
      widest = exact ? e : std::max(widest, e);
      exact = false;
    }
  }
  if (zero && exact) return {};
  if (zero) throw TooFewBits();
  if (exact) return {top, Ball::precision};
  double sum = 0;
  for (size_t i = 0; i < n; ++i)
    if (row[i] != nullptr && !row[i]->exact())
      sum += std::ldexp(1.0, static_cast<int>(std::max(-1000L, MAG_EXP(row[i]->radius()) - widest)));
  const double relative = static_cast<double>(widest - top) + std::log2(sum / static_cast<double>(n));
  if (widest - top > worst_relative_radius) throw TooFewBits();
  return {top, std::min(Ball::precision, static_cast<long>(std::ceil(static_cast<double>(guard_bits) - relative)))};
}

/// Bits [begin, begin + count) of the integer of n limbs, count <= 63; what lies outside it is 0.
uint64_t bit_field(mp_srcptr limbs, mp_size_t n, long begin, long count) {
  if (begin <= -count || begin >= 64 * n) return 0;
  const uint64_t mask = (uint64_t{1} << count) - 1;
  if (begin < 0) return limbs[0] << -begin & mask;
  const long limb = begin / 64, shift = begin % 64;
  uint64_t field = limbs[limb] >> shift;
  if (shift + count > 64 && limb + 1 < n) field |= limbs[limb + 1] << (64 - shift);
  return field & mask;
}

/// Writes the `count` digits of middle / 2^unit, `step` apart. True if something was cut off.
template <class T>
bool cut(arf_srcptr middle, long unit, size_t count, long digit_bits, T* digits, size_t step) {
  if (arf_is_zero(middle)) {
    for (size_t a = 0; a < count; ++a) digits[a * step] = T(0);
    return false;
  }
  mp_srcptr limbs;
  mp_size_t n;
  ARF_GET_MPN_READONLY(limbs, n, middle);
  // |middle| / 2^unit = (the integer of the limbs) · 2^shift, and the lowest limb is not 0.
  const long shift = ARF_EXP(middle) - 64 * n - unit;
  const bool negative = arf_sgn(middle) < 0;
  for (size_t a = 0; a < count; ++a) {
    const T digit = static_cast<T>(bit_field(limbs, n, static_cast<long>(a) * digit_bits - shift, digit_bits));
    digits[a * step] = negative ? -digit : digit;
  }
  return shift < -std::countr_zero(static_cast<uint64_t>(limbs[0]));
}

/// Integers of at most 2^bits and their unit: values[i] <= integers[i] · 2^unit.
template <class T>
long round_up(const std::vector<Magnitude>& values, long bits, T* integers) {
  long top = 0;
  bool zero = true;
  for (const Magnitude& value : values)
    if (!mag_is_zero(value.get())) {
      top = zero ? exponent(value.get()) : std::max(top, exponent(value.get()));
      zero = false;
    }
  const long unit = top - bits;
  for (size_t i = 0; i < values.size(); ++i) {
    mag_srcptr value = values[i].get();
    if (mag_is_zero(value)) integers[i] = T(0);
    else if (MAG_EXP(value) <= unit) integers[i] = T(1);
    else  // a mag_t has 30 bits, so this is exact before ceil()
      integers[i] = static_cast<T>(std::ceil(std::ldexp(static_cast<double>(MAG_MAN(value)),
                                                        static_cast<int>(MAG_EXP(value) - unit) - MAG_BITS)));
  }
  return unit;
}

/// The error of a cut middle: its radius, and a unit if something was cut off.
void add_error(const Ball& x, bool inexact, long unit, Magnitude& error) {
  mag_set(error.get(), x.radius());
  if (!inexact) return;
  const fmpz exponent = unit;
  mag_add_2exp_fmpz(error.get(), error.get(), &exponent);
}

// --- 2: exact sums ----------------------------------------------------------------------------------------------

/// w (outputs, terms) as a matrix of a checkpoint.
StoredMatrix as_matrix(const float* w, size_t outputs, size_t terms) {
  StoredMatrix matrix;
  matrix.data = reinterpret_cast<const std::byte*>(w);
  matrix.dtype = DType::F32;
  matrix.rows = outputs;
  matrix.cols = terms;
  return matrix;
}

/// The int64 of an integer of at most 2^53, or of another number something else: in two halves of which fp64's own bits
/// are the integer, since the conversion has no vector instruction before AVX-512.
int64_t to_integer(double x) {
  constexpr double rounder = 0x1.8p52;
  const double high = x * 0x1p-22 + rounder;
  const double low = (x - (high - rounder) * 0x1p22) + rounder;
  const int64_t zero = std::bit_cast<int64_t>(rounder);
  return ((std::bit_cast<int64_t>(high) - zero) << 22) + (std::bit_cast<int64_t>(low) - zero);
}

// --- 3: the middle ----------------------------------------------------------------------------------------------

/// middle = 2^unit · Σₛ place(s) · 2^(digit_bits · s), s < places, where |place(s)| < 2^62.
template <class Place>
void carry(size_t places, long digit_bits, const Place& place, long unit, std::vector<mp_limb_t>& limbs, arf_t middle) {
  limbs.assign((places * static_cast<size_t>(digit_bits) + 64) / 64 + 2, 0);
  const uint64_t mask = (uint64_t{1} << digit_bits) - 1;
  int64_t rest = 0;
  size_t bit = 0;
  const auto put = [&] {
    const uint64_t digit = static_cast<uint64_t>(rest) & mask;
    limbs[bit / 64] |= digit << bit % 64;
    if (bit % 64 + static_cast<size_t>(digit_bits) > 64) limbs[bit / 64 + 1] |= digit >> (64 - bit % 64);
    rest >>= digit_bits;
    bit += static_cast<size_t>(digit_bits);
  };
  for (size_t s = 0; s < places; ++s) {
    rest += place(s);
    put();
  }
  while (rest != 0 && rest != -1) put();
  auto n = static_cast<mp_size_t>(limbs.size());
  if (rest < 0) {  // two's complement: the bits above are ones
    for (; bit % 64 != 0; ++bit) limbs[bit / 64] |= uint64_t{1} << bit % 64;
    std::fill(limbs.begin() + static_cast<long>(bit / 64), limbs.end(), ~mp_limb_t{0});
    mpn_neg(limbs.data(), limbs.data(), n);
  }
  while (n > 0 && limbs[static_cast<size_t>(n - 1)] == 0) --n;
  if (n == 0) return arf_zero(middle);
  arf_set_mpn(middle, limbs.data(), n, rest < 0);
  arf_mul_2exp_si(middle, middle, unit);
}

/// radius += integer · 2^unit
void add_radius(uint64_t integer, long unit, mag_t radius) {
  Magnitude more;
  mag_set_ui_2exp_si(more.get(), integer, unit);
  mag_add(radius, radius, more.get());
}

// --- rows of x against a checkpoint's weights -------------------------------------------------------------------

/// Rows of balls, each cut into as many digits as its own radius is worth; the errors are a last row of their own.
struct CutRows {
  long digit_bits;
  std::vector<size_t> first, count;    ///< digit rows of each row
  std::vector<long> unit, error_unit;  ///< C and F
  size_t cols;
  Lines<double> digits;  ///< (digit rows, cols)
  Lines<double> errors;  ///< (rows, cols)
};

CutRows cut_rows(const Matrix<Ball>& x, size_t begin, size_t end, const std::vector<Reach>& reach, long digit_bits) {
  const size_t rows = end - begin;
  CutRows cuts{digit_bits, {}, {}, std::vector<long>(rows), std::vector<long>(rows), x.cols, {}, {}};
  size_t total = 0;
  for (size_t p = 0; p < rows; ++p) {
    cuts.first.push_back(total);
    cuts.count.push_back(static_cast<size_t>(ceil_div(reach[begin + p].bits, digit_bits)));
    cuts.unit[p] = reach[begin + p].top - static_cast<long>(cuts.count[p]) * digit_bits;
    total += cuts.count[p];
  }
  cuts.digits.resize(total * x.cols);
  cuts.errors.resize(rows * x.cols);
  parallel_for(rows, [&](size_t p) {
    std::vector<Magnitude> errors(x.cols);
    for (size_t i = 0; i < x.cols; ++i) {
      const Ball& value = x[begin + p][i];
      const bool inexact = cut(value.middle(), cuts.unit[p], cuts.count[p], digit_bits,
                               &cuts.digits[cuts.first[p] * x.cols + i], x.cols);
      add_error(value, inexact, cuts.unit[p], errors[i]);
    }
    cuts.error_unit[p] = round_up(errors, digit_bits, &cuts.errors[p * x.cols]);
  });
  return cuts;
}

/// Weight rows [begin, begin + rows) as integers: |w| = integer · 2^unit, in `count` digits.
struct WeightPanel {
  size_t rows = 0;
  std::vector<long> unit;        ///< L
  long digit_bits = 0;           ///< γ
  size_t count = 1;              ///< digits
  std::vector<Lines<float>> digits;  ///< of each (rows, cols)
  Lines<float> magnitudes;       ///< |w| rounded up to γ bits, (rows, cols)
  long magnitude_shift = 0;      ///< of unit 2^(L + shift)
};

/// The lowest and one past the highest bit of a finite fp32 number that is not 0: |w| = odd · 2^low < 2^high.
std::pair<long, long> bits_of(float w) {
  const uint32_t word = std::bit_cast<uint32_t>(w);
  const long exponent = word >> 23 & 0xff;
  const uint32_t significand = (word & 0x7fffff) | (exponent != 0 ? 0x800000 : 0);
  const long unit = std::max(exponent, 1L) - 150;
  return {unit + std::countr_zero(significand), unit + std::bit_width(significand)};
}

WeightPanel read_weights(const StoredMatrix& w, size_t begin, size_t rows) {
  WeightPanel panel;
  const size_t cols = w.cols;
  panel.rows = rows;
  panel.unit.assign(rows, 0);
  Lines<float> values;
  values.resize(rows * cols);
  panel.magnitudes.resize(rows * cols);
  std::vector<long> width(rows, 1);
  parallel_for(rows, [&](size_t r) {
    float* row = &values[r * cols];
    widen(w.dtype, w.row(begin + r), 0, cols, row);
    long low = 1000, high = -1000;
    for (size_t i = 0; i < cols; ++i) {
      if (row[i] == 0) continue;
      if (!std::isfinite(row[i])) throw std::logic_error("a weight is no number");
      const auto [first, end] = bits_of(row[i]);
      low = std::min(low, first);
      high = std::max(high, end);
    }
    if (low == 1000) return;
    panel.unit[r] = low;
    width[r] = high - low;
  });
  const long widest = *std::max_element(width.begin(), width.end());
  const long spare = bits_of_double - ceil_log2(cols);
  const bool one = widest <= widest_weight && spare - widest >= narrowest_digit;
  panel.digit_bits = one ? widest : std::min(widest_digit, spare / 2);
  panel.count = one ? 1 : static_cast<size_t>(ceil_div(widest, panel.digit_bits));
  panel.magnitude_shift = std::max(0L, widest - panel.digit_bits);
  panel.digits.resize(panel.count);
  for (Lines<float>& digit : panel.digits) digit.resize(rows * cols);
  parallel_for(rows, [&](size_t r) {
    const double scale = std::ldexp(1.0, static_cast<int>(-panel.unit[r]));
    const double magnitude_scale = std::ldexp(scale, static_cast<int>(-panel.magnitude_shift));
    for (size_t at = r * cols; at < (r + 1) * cols; ++at) {
      const float value = values[at];
      if (one) {  // an integer that fp32 holds, since a weight has 24 bits
        panel.digits[0][at] = static_cast<float>(static_cast<double>(value) * scale);
        panel.magnitudes[at] = std::fabs(panel.digits[0][at]);
        continue;
      }
      long low = 0;
      mp_limb_t odd = 0;  // |w| = odd · 2^low
      if (value != 0) {
        low = bits_of(value).first;
        odd = static_cast<mp_limb_t>(std::ldexp(std::fabs(static_cast<double>(value)), static_cast<int>(-low)));
      }
      for (size_t g = 0; g < panel.count; ++g) {
        const auto digit = static_cast<float>(
            bit_field(&odd, 1, static_cast<long>(g) * panel.digit_bits - (low - panel.unit[r]), panel.digit_bits));
        panel.digits[g][at] = value < 0 ? -digit : digit;
      }
      panel.magnitudes[at] = static_cast<float>(std::ceil(std::fabs(static_cast<double>(value)) * magnitude_scale));
    }
  });
  return panel;
}

}  // namespace

void set_product_kernel(const std::string& name) { product_kernels = &find_kernels<double>(name); }

void require_exact_sums(size_t terms, long x_bits, long w_bits) {
  if (x_bits < 1 || w_bits < 1 || ceil_log2(terms) + x_bits + w_bits > bits_of_double)
    throw std::logic_error("a sum of " + std::to_string(terms) + " products of " + std::to_string(x_bits) + " and " +
                           std::to_string(w_bits) + " bits may pass 2^53, beyond which fp64 rounds");
}

void checked_product(const double* x, size_t rows, size_t terms, const float* w, size_t outputs, double* y,
                     const Kernels<double>& kernels) {
  kernels.matmul(x, rows, as_matrix(w, outputs, terms), y);
  // Unsigned: modulo 2^64.
  std::vector<uint64_t> column(terms, 0);
  const auto whole = [](auto integer) { return static_cast<uint64_t>(int64_t{static_cast<int32_t>(integer)}); };
  for (size_t n = 0; n < outputs; ++n)
    for (size_t i = 0; i < terms; ++i) column[i] += whole(w[n * terms + i]);
  parallel_for(rows, [&](size_t r) {
    uint64_t expected = 0, found = 0;
    for (size_t i = 0; i < terms; ++i) expected += whole(x[r * terms + i]) * column[i];
    for (size_t n = 0; n < outputs; ++n) found += static_cast<uint64_t>(to_integer(y[r * outputs + n]));
    if (found != expected)
      throw std::logic_error(std::string("the products of kernel ") + kernels.name +
                             " are not exact sums of integers; nothing they give can be certified");
  });
}

template <>
Matrix<Ball> definition::linear(const Matrix<Ball>& x, const StoredMatrix& w, std::span<const float> b) {
  Matrix<Ball> y(x.rows, w.rows);
  std::vector<Reach> reach(x.rows);
  size_t digit_rows = 0;
  parallel_for(x.rows, [&](size_t p) {
    std::vector<const Ball*> row(x.cols);
    for (size_t i = 0; i < x.cols; ++i) row[i] = &x[p][i];
    reach[p] = reach_of(row.data(), x.cols);
  });
  for (const Reach& of_row : reach) digit_rows += static_cast<size_t>(of_row.bits / narrowest_digit + 1);
  // Rows of x in groups, weight rows in panels, so that what lies in memory is bounded.
  const size_t groups = ceil_div(digit_rows, most_digit_rows), group = ceil_div(x.rows, groups);
  const size_t rows_of_panel = std::clamp<size_t>(
      panel_bytes / (16 * w.cols + 8 * std::min(digit_rows, most_digit_rows)), 1, w.rows);
  const size_t panels = ceil_div(w.rows, rows_of_panel), panel_rows = ceil_div(w.rows, panels);
  Lines<double> sums, errors;
  for (size_t n = 0; n < w.rows; n += panel_rows) {
    const WeightPanel panel = read_weights(w, n, std::min(panel_rows, w.rows - n));
    const size_t outputs = panel.rows;
    const long spare = bits_of_double - ceil_log2(w.cols) - panel.digit_bits;
    const long digit_bits = panel.count > 1 ? panel.digit_bits : std::min(widest_digit, spare);
    require_exact_sums(w.cols, digit_bits, panel.digit_bits);
    for (size_t p = 0; p < x.rows; p += group) {
      const size_t rows = std::min(group, x.rows - p);
      const CutRows cuts = cut_rows(x, p, p + rows, reach, digit_bits);
      const size_t total = cuts.first.back() + cuts.count.back();
      sums.resize(panel.count * total * outputs);
      errors.resize(rows * outputs);
      for (size_t g = 0; g < panel.count; ++g)
        checked_product(cuts.digits.data(), total, w.cols, panel.digits[g].data(), outputs,
                        &sums[g * total * outputs], kernels());
      checked_product(cuts.errors.data(), rows, w.cols, panel.magnitudes.data(), outputs, errors.data(), kernels());
      parallel_for(rows, [&](size_t r) {
        std::vector<mp_limb_t> limbs;
        for (size_t j = 0; j < outputs; ++j) {
          arb_ptr out = y[p + r][n + j].get();
          const auto place = [&](size_t s) {
            int64_t sum = 0;
            for (size_t g = 0; g < panel.count && g <= s; ++g)
              if (s - g < cuts.count[r])
                sum += to_integer(sums[(g * total + cuts.first[r] + s - g) * outputs + j]);
            return sum;
          };
          carry(cuts.count[r] + panel.count - 1, digit_bits, place, cuts.unit[r] + panel.unit[j], limbs,
                arb_midref(out));
          mag_zero(arb_radref(out));
          add_radius(static_cast<uint64_t>(errors[r * outputs + j]),
                     cuts.error_unit[r] + panel.unit[j] + panel.magnitude_shift, arb_radref(out));
          if (b.empty()) arb_set_round(out, out, Ball::precision);
          else arb_add(out, out, Ball(static_cast<double>(b[n + j])).get(), Ball::precision);
        }
      });
    }
  }
  return y;
}

// --- attention: balls against balls -----------------------------------------------------------------------------

namespace {

/// Rows of balls, all cut into equally many digits. The terms come in blocks of block_terms: what belongs to the terms
/// [begin, end) of all rows lies together, digit by digit and row by row.
template <class T>
struct EvenRows {
  size_t first = 0, rows = 0, cols = 0;  ///< rows [first, first + rows) of a table
  size_t count = 1;                      ///< digits
  long bits = 1;                         ///< that are worth reading of the best row
  size_t begin = 0, end = 0;             ///< the columns outside which all is zero
  std::vector<long> unit, error_unit, magnitude_unit;
  Lines<T> digits, errors, magnitudes;

  size_t width(size_t block) const { return std::min(block_terms, cols - block); }
  const T* digit(size_t block, size_t a) const { return &digits[count * rows * block + a * rows * width(block)]; }
  const T* of_block(const Lines<T>& values, size_t block) const { return &values[rows * block]; }

  EvenRows() = default;
  /// `magnitudes` bound the middles, with `with_radius` the whole balls.
  EvenRows(const BallTable& x, size_t first, size_t rows, long digit_bits, bool with_radius);

 private:
  void cut_row(const BallTable& x, size_t r, long top, long digit_bits, bool with_radius);
};

template <class T>
EvenRows<T>::EvenRows(const BallTable& x, size_t first, size_t rows, long digit_bits, bool with_radius)
    : first(first), rows(rows), cols(x.cols), begin(x.cols), unit(rows), error_unit(rows), magnitude_unit(rows) {
  std::vector<Reach> reach(rows);
  for (size_t r = 0; r < rows; ++r) {
    reach[r] = reach_of(&x.entries[(first + r) * cols], cols);
    bits = std::max(bits, reach[r].bits);
    for (size_t i = 0; i < cols; ++i)
      if (x.at(first + r, i) != nullptr) {
        begin = std::min(begin, i);
        end = std::max(end, i + 1);
      }
  }
  count = static_cast<size_t>(ceil_div(bits, digit_bits));
  if (count > most_digits)
    refuse("certify", "attention's rows take " + std::to_string(bits) + " bits, expected at most " +
           std::to_string(static_cast<long>(most_digits) * digit_bits), "give a smaller --bits, or none");
  digits.resize(count * rows * cols);
  errors.resize(rows * cols);
  magnitudes.resize(rows * cols);
  for (size_t r = 0; r < rows; ++r) cut_row(x, r, reach[r].top, digit_bits, with_radius);
}

template <class T>
void EvenRows<T>::cut_row(const BallTable& x, size_t r, long top, long digit_bits, bool with_radius) {
  const Ball zero;
  unit[r] = top - static_cast<long>(count) * digit_bits;
  std::vector<Magnitude> error(cols), magnitude(cols);
  std::vector<T> integers(cols);
  const auto store = [&](Lines<T>& into) {
    for (size_t i = 0; i < cols; ++i) {
      const size_t block = i / block_terms * block_terms;
      into[rows * block + r * width(block) + i - block] = integers[i];
    }
  };
  for (size_t i = 0; i < cols; ++i) {
    const Ball* entry = x.at(first + r, i);
    const Ball& value = entry == nullptr ? zero : *entry;
    const size_t block = i / block_terms * block_terms;
    T* at = &digits[count * rows * block + r * width(block) + i - block];
    const bool inexact = cut(value.middle(), unit[r], count, digit_bits, at, rows * width(block));
    add_error(value, inexact, unit[r], error[i]);
    arf_get_mag(magnitude[i].get(), value.middle());
    if (with_radius) mag_add(magnitude[i].get(), magnitude[i].get(), error[i].get());
  }
  error_unit[r] = round_up(error, digit_bits, integers.data());
  store(errors);
  magnitude_unit[r] = round_up(magnitude, digit_bits, integers.data());
  store(magnitudes);
}

/// One piece of the outputs, (rows of a, rows of b), summed up over the blocks of terms.
struct Piece {
  const EvenRows<double>& a;
  const EvenRows<float>& b;
  long digit_bits;
  size_t first_place;                  ///< s₀: places below are left off
  size_t places;
  std::vector<int64_t> place;          ///< (places, rows of a, rows of b)
  std::vector<uint64_t> w_error, x_error;  ///< of each output, in their units

  Piece(const EvenRows<double>& a, const EvenRows<float>& b, long digit_bits) : a(a), b(b), digit_bits(digit_bits) {
    const auto all = static_cast<long>(a.count + b.count - 1);
    // What lies below the reach of the worse of the two sides is noise.
    const long keep = std::min(a.bits, b.bits) + 2 * guard_bits + ceil_log2(a.cols) + ceil_log2(a.count);
    first_place = static_cast<size_t>(std::clamp((all + 1) - ceil_div(keep, digit_bits) - 1, 0L, all - 1));
    places = static_cast<size_t>(all) - first_place;
    place.assign(places * area(), 0);
    w_error.assign(area(), 0);
    x_error.assign(area(), 0);
  }
  size_t area() const { return a.rows * b.rows; }
  void add_terms(size_t block);
  Ball sum(size_t p, size_t n, std::vector<mp_limb_t>& limbs) const;
};

void Piece::add_terms(size_t block) {
  const size_t terms = a.width(block);
  Lines<double> sums;
  sums.resize(a.count * area());
  for (size_t j = 0; j < b.count; ++j) {
    const size_t first = first_place > j ? first_place - j : 0;
    if (first >= a.count) continue;
    const size_t rows = (a.count - first) * a.rows;
    checked_product(a.digit(block, first), rows, terms, b.digit(block, j), b.rows, sums.data(), kernels());
    int64_t* into = &place[(first + j - first_place) * area()];
    for (size_t k = 0; k < rows * b.rows; ++k) into[k] += to_integer(sums[k]);
  }
  const auto add_errors = [&](const Lines<double>& x, const Lines<float>& w, std::vector<uint64_t>& into) {
    checked_product(a.of_block(x, block), a.rows, terms, b.of_block(w, block), b.rows, sums.data(), kernels());
    for (size_t k = 0; k < area(); ++k) into[k] += static_cast<uint64_t>(to_integer(sums[k]));
  };
  add_errors(a.magnitudes, b.errors, w_error);
  add_errors(a.errors, b.magnitudes, x_error);
}

Ball Piece::sum(size_t p, size_t n, std::vector<mp_limb_t>& limbs) const {
  const size_t at = p * b.rows + n;
  const long unit = a.unit[p] + b.unit[n];
  Ball y;
  carry(places, digit_bits, [&](size_t s) { return place[s * area() + at]; },
        unit + static_cast<long>(first_place) * digit_bits, limbs, arb_midref(y.get()));
  mag_ptr radius = arb_radref(y.get());
  add_radius(w_error[at], a.magnitude_unit[p] + b.error_unit[n], radius);
  add_radius(x_error[at], a.error_unit[p] + b.magnitude_unit[n], radius);
  if (first_place > 0)
    add_radius(2 * first_place * a.cols, unit + static_cast<long>(first_place + 1) * digit_bits, radius);
  arb_set_round(y.get(), y.get(), Ball::precision);
  return y;
}

}  // namespace

void exact_chains(const BallTable& x, const BallTable& w, const std::function<Visible(size_t p)>& wanted,
                  const std::function<void(size_t p, size_t n, const Ball& sum)>& put) {
  const size_t terms = x.cols;
  // The sums of one block fit fp64, those of all blocks and digits int64.
  const long digit_bits = std::min({widest_digit, (bits_of_double - ceil_log2(std::min(terms, block_terms))) / 2,
                                    (62 - ceil_log2(most_digits) - ceil_log2(terms)) / 2});
  require_exact_sums(std::min(terms, block_terms), digit_bits, digit_bits);
  std::vector<EvenRows<double>> left(ceil_div(x.rows, block_rows));
  std::vector<EvenRows<float>> right(ceil_div(w.rows, block_outputs));
  parallel_for(left.size() + right.size(), [&](size_t k) {
    if (k < left.size()) {
      const size_t first = k * block_rows;
      left[k] = EvenRows<double>(x, first, std::min(block_rows, x.rows - first), digit_bits, false);
    } else {
      const size_t first = (k - left.size()) * block_outputs;
      right[k - left.size()] = EvenRows<float>(w, first, std::min(block_outputs, w.rows - first), digit_bits, true);
    }
  });
  parallel_for(left.size() * right.size(), [&](size_t task) {
    const EvenRows<double>& a = left[task / right.size()];
    const EvenRows<float>& b = right[task % right.size()];
    bool any = false;
    for (size_t p = 0; p < a.rows; ++p)
      any = any || (wanted(a.first + p).begin < b.first + b.rows && b.first < wanted(a.first + p).end);
    if (!any) return;
    Piece piece(a, b, digit_bits);
    for (size_t block = a.begin / block_terms * block_terms; block < a.end; block += block_terms)
      piece.add_terms(block);
    std::vector<mp_limb_t> limbs;
    for (size_t p = 0; p < a.rows; ++p)
      for (size_t n = 0; n < b.rows; ++n)
        if (wanted(a.first + p).holds(b.first + n)) put(a.first + p, b.first + n, piece.sum(p, n, limbs));
  });
}

template <>
Matrix<Ball> definition::scores(const Matrix<Ball>& q, size_t at_q, const Matrix<Ball>& k, size_t at_k, Ball scale, size_t h,
                                Mask seen) {
  BallTable left(q.rows, h), right(k.rows, h);
  for (size_t p = 0; p < q.rows; ++p)
    for (size_t i = 0; i < h; ++i) left.at(p, i) = &q[p][at_q + i];
  for (size_t j = 0; j < k.rows; ++j)
    for (size_t i = 0; i < h; ++i) right.at(j, i) = &k[j][at_k + i];
  Matrix<Ball> s(q.rows, k.rows, Ball(masked));
  exact_chains(left, right, seen, [&](size_t p, size_t j, const Ball& sum) { s[p][j] = scale * sum; });
  return s;
}

template <>
void definition::weigh(const Matrix<Ball>& pattern, const Matrix<Ball>& v, size_t at_v, size_t h, Mask seen, Matrix<Ball>& z,
                       size_t at_z) {
  BallTable left(pattern.rows, v.rows), right(h, v.rows);
  for (size_t p = 0; p < pattern.rows; ++p)
    for (size_t j = seen(p).begin; j < seen(p).end; ++j) left.at(p, j) = &pattern[p][j];
  for (size_t i = 0; i < h; ++i)
    for (size_t j = 0; j < v.rows; ++j) right.at(i, j) = &v[j][at_v + i];
  const auto all = [&](size_t) { return Visible{0, h}; };
  exact_chains(left, right, all, [&](size_t p, size_t i, const Ball& sum) { z[p][at_z + i] = sum; });
}

}  // namespace sinkref
