// Balls: that they hold the truth, that they are tight, and that what would make them lie is seen.

#include "certify/certify.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <map>
#include <random>

#include "base/threads.h"
#include "certify/ball_forward.h"
#include "certify/claims.h"
#include "certify/cost.h"
#include "certify/exact_product.h"
#include "certify/rounding.h"
#include "cli/prover.h"
#include "measure/certified/panel.h"
#include "measure/panels.h"
#include "planted_model.h"
#include "sinkref/error.h"
#include "verify/golden_file.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const std::string smollm2 = SINKREF_SOURCE_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
const char* const tiny_models[] = {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"};
constexpr long of_truth = 500;  // bits

std::vector<int> some_tokens(const Model& model, size_t n) {
  std::vector<int> tokens;
  for (size_t i = 0; i < n; ++i)
    tokens.push_back(static_cast<int>((i < n / 2 ? i * i * 31 + i * 17 + 7 : 42) % model.config().vocab_size));
  return tokens;
}

using Trace = std::map<std::tuple<Hook, size_t, size_t>, std::vector<Ball>>;

/// The values of the row that a query may see, where there are others.
std::span<const Ball> seen_part(const ModelConfig& config, Hook hook, size_t position, const Ball* row, size_t width) {
  if (!is_attention(hook.point)) return {row, width};
  const Visible seen = visible_to(position, config.sliding_window);
  return {row + seen.begin, row + seen.end};
}

Trace traced(const Model& model, const BallRun& run, long bits) {
  Trace trace;
  run_balls(model, run, bits, model.config().layers, true,
            [&](Hook hook, size_t head, size_t first, const Matrix<Ball>& values) {
              for (size_t p = 0; p < values.rows; ++p) {
                const auto row = seen_part(model.config(), hook, first + p, values[p], values.cols);
                trace[{hook, head, first + p}] = {row.begin(), row.end()};
              }
            },
            {});
  return trace;
}

/// A ball that has nothing but its operations, so that the page is read as it stands, without exact_product.cpp.
/// `wrong`: one whose exp claims to be exact though it was rounded down.
template <bool wrong>
struct Plain {
  Ball x;
  Plain(double value = 0) : x(value) {}
  Plain(Ball value) : x(std::move(value)) {}
  friend Plain operator+(const Plain& a, const Plain& b) { return a.x + b.x; }
  friend Plain operator-(const Plain& a, const Plain& b) { return a.x - b.x; }
  friend Plain operator*(const Plain& a, const Plain& b) { return a.x * b.x; }
  friend Plain operator/(const Plain& a, const Plain& b) { return a.x / b.x; }
  friend Plain operator-(const Plain& a) { return -a.x; }
  friend bool operator<(const Plain& a, const Plain& b) { return a.x < b.x; }
};

}  // namespace

namespace sinkref {
template <bool wrong>
struct Number<Plain<wrong>> {
  using N = Plain<wrong>;
  using Wide = N;
  static N wide(N x) { return x; }
  static N narrow(N x) { return x; }
  static N sqrt(N x) { return Number<Ball>::sqrt(x.x); }
  static N fma(N a, N b, N c) { return Number<Ball>::fma(a.x, b.x, c.x); }
  static N exp(N x) {
    Ball y = Number<Ball>::exp(x.x);
    if (wrong) {
      arb_get_lbound_arf(arb_midref(y.get()), y.get(), 60);
      mag_zero(arb_radref(y.get()));
    }
    return y;
  }
};
}  // namespace sinkref

namespace {

template <bool wrong>
Trace by_page(const Model& model, const std::vector<int>& tokens, long bits, Softmax softmax) {
  Ball::precision = bits;
  Trace trace;
  definition::Past<Plain<wrong>> past(model.config());
  const auto observe = [&](Hook hook, size_t head, Matrix<Plain<wrong>>& values) {
    for (size_t p = 0; p < values.rows; ++p) {
      std::vector<Ball> row;
      for (size_t i = 0; i < values.cols; ++i) row.push_back(values[p][i].x);
      const auto part = seen_part(model.config(), hook, p, row.data(), row.size());
      trace[{hook, head, p}] = {part.begin(), part.end()};
    }
  };
  definition::forward<Plain<wrong>>(model, tokens, past, 0, model.config().layers, true, softmax, {observe});
  return trace;
}

struct Compared {
  size_t inside = 0, outside = 0, apart = 0;
};

/// Whether balls hold the truth, which is far narrower.
Compared compare(const Trace& balls, const Trace& truth) {
  Compared result;
  REQUIRE(balls.size() == truth.size());
  for (const auto& [key, values] : truth)
    for (size_t i = 0; i < values.size(); ++i) {
      const Ball& ball = balls.at(key)[i];
      arb_contains(ball.get(), values[i].get()) ? ++result.inside : ++result.outside;
      result.apart += !arb_overlaps(ball.get(), values[i].get());
    }
  return result;
}

StoredMatrix matrix_of(const std::vector<float>& values, size_t rows, size_t cols) {
  StoredMatrix matrix;
  matrix.data = reinterpret_cast<const std::byte*>(values.data());
  matrix.rows = rows;
  matrix.cols = cols;
  return matrix;
}

/// Balls of very different sizes and radii.
Matrix<Ball> some_balls(size_t rows, size_t cols, std::mt19937_64& random) {
  Matrix<Ball> x(rows, cols);
  for (Ball& ball : x.values) {
    arb_set_d(ball.get(), std::ldexp(static_cast<double>(random()) - 0x1p63, static_cast<int>(random() % 20) - 63));
    arb_div_ui(ball.get(), ball.get(), 3 + random() % 5, 200);
    mag_set_ui_2exp_si(arb_radref(ball.get()), random() % 1000, -90 - static_cast<long>(random() % 20));
  }
  return x;
}

/// The end of a ball on one side, an exact number.
Ball end_of(const Ball& x, bool upper) {
  Ball y = centre(x), radius;
  arf_set_mag(arb_midref(radius.get()), x.radius());
  (upper ? arb_add : arb_sub)(y.get(), y.get(), radius.get(), ARF_PREC_EXACT);
  return y;
}

Ball exact_product_of(const Ball& a, const Ball& b) {
  Ball y;
  arb_mul(y.get(), a.get(), b.get(), ARF_PREC_EXACT);
  return y;
}

void add_exactly(Ball& sum, const Ball& x) { arb_add(sum.get(), sum.get(), x.get(), ARF_PREC_EXACT); }

bool holds(const Ball& ball, const Ball& x) { return arb_contains(ball.get(), x.get()); }

Ball halved(Ball x) {
  mag_mul_2exp_si(arb_radref(x.get()), x.radius(), -1);
  return x;
}

void set_kernel() { set_product_kernel("auto"); }

}  // namespace

TEST_CASE("certify: a product with weights holds its extremes, and with half the radius or a term dropped it does not",
          "[certify]") {
  set_kernel();
  std::mt19937_64 random(17);
  for (const size_t cols : {1, 7, 64, 576, 1536})
    for (const int spread : {0, 3, 60}) {  // how much longer than 24 bits a row of weights is
      CAPTURE(cols, spread);
      Ball::precision = 400;
      const Matrix<Ball> x = some_balls(3, cols, random);
      std::vector<float> w(5 * cols);
      for (float& value : w)
        value = std::ldexp(static_cast<float>(static_cast<int64_t>(random() % 0x1ffffff) - 0xffffff),
                           -24 - (spread == 0 ? 0 : static_cast<int>(random() % static_cast<unsigned>(spread))));
      const std::vector<float> bias = {1, -2, 0, 0x1p-149f, 3};
      const Matrix<Ball> y = definition::linear(x, matrix_of(w, 5, cols), bias);
      size_t tight = 0, dropped = 0;
      for (size_t p = 0; p < 3; ++p)
        for (size_t n = 0; n < 5; ++n)
          for (const bool upper : {false, true}) {
            Ball extreme(static_cast<double>(bias[n])), without = extreme;
            for (size_t i = 0; i < cols; ++i) {
              const Ball term = exact_product_of(end_of(x[p][i], (w[n * cols + i] > 0) == upper),
                                                 Ball(static_cast<double>(w[n * cols + i])));
              add_exactly(extreme, term);
              if (i != cols / 2) add_exactly(without, term);
            }
            CHECK(holds(y[p][n], extreme));
            tight += !holds(halved(y[p][n]), extreme);
            dropped += !holds(y[p][n], without);
          }
      CHECK(tight == 30);
      CHECK(dropped == 30);
    }
}

TEST_CASE("certify: a product of balls holds its extremes, and with half the radius or a term dropped it does not",
          "[certify]") {
  set_kernel();
  std::mt19937_64 random(18);
  using Sizes = std::tuple<size_t, size_t, size_t>;
  for (const auto& [rows, outputs, terms] : {Sizes{3, 5, 8}, Sizes{40, 70, 64}, Sizes{33, 65, 300}}) {
    CAPTURE(rows, outputs, terms);
    Ball::precision = 400;
    const Matrix<Ball> x = some_balls(rows, terms, random), w = some_balls(outputs, terms, random);
    BallTable left(rows, terms), right(outputs, terms);
    for (size_t p = 0; p < rows; ++p)
      for (size_t i = 0; i <= p % terms + terms / 2 && i < terms; ++i) left.at(p, i) = &x[p][i];
    for (size_t n = 0; n < outputs; ++n)
      for (size_t i = 0; i < terms; ++i) right.at(n, i) = &w[n][i];
    const auto wanted = [&](size_t) { return Visible{1, outputs}; };
    Matrix<Ball> y(rows, outputs);
    exact_chains(left, right, wanted, [&](size_t p, size_t n, const Ball& sum) { y[p][n] = sum; });
    size_t tight = 0, dropped = 0, all = 0;
    for (size_t p = 0; p < rows; p += 7)
      for (size_t n = 1; n < outputs; n += 9) {
        Ball extreme, without;
        for (size_t i = 0; i < terms && left.at(p, i) != nullptr; ++i) {
          // The largest product of two ends.
          Ball best = exact_product_of(end_of(x[p][i], false), end_of(w[n][i], false));
          for (const auto& [a, b] : {std::pair{false, true}, {true, false}, {true, true}}) {
            const Ball other = exact_product_of(end_of(x[p][i], a), end_of(w[n][i], b));
            if (best < other) best = other;
          }
          add_exactly(extreme, best);
          if (i != 1) add_exactly(without, best);
        }
        ++all;
        CHECK(holds(y[p][n], extreme));
        tight += !holds(halved(y[p][n]), extreme);
        dropped += !holds(y[p][n], without);
        CHECK(arf_is_zero(y[p][0].middle()));  // not asked for
      }
    CHECK(tight == all);
    CHECK(dropped == all);
  }
}

TEST_CASE("certify: digits so wide that sums pass 2^53, and kernels that round, are caught as they run",
          "[certify]") {
  CHECK_NOTHROW(require_exact_sums(576, 22, 21));
  CHECK_THROWS_AS(require_exact_sums(577, 23, 21), std::logic_error);
  CHECK_THROWS_AS(require_exact_sums(1 << 20, 24, 24), std::logic_error);
  std::vector<double> x(300);
  std::vector<float> w(10 * 300);
  std::mt19937_64 random(19);
  const auto fill = [&](unsigned bits) {
    for (double& value : x) value = static_cast<double>(random() >> (64 - bits));
    for (float& value : w) value = static_cast<float>(random() >> (64 - 23));
  };
  std::vector<double> y(10);
  for (const std::string& name : available_kernels()) {
    CAPTURE(name);
    const Kernels<double>& kernels = find_kernels<double>(name);
    fill(21);
    CHECK_NOTHROW(checked_product(x.data(), 1, 300, w.data(), 10, y.data(), kernels));
    fill(30);
    CHECK_THROWS_AS(checked_product(x.data(), 1, 300, w.data(), 10, y.data(), kernels), std::logic_error);
  }
  Kernels<double> single = find_kernels<double>("auto");
  single.matmuls = [](const double* in, size_t, std::span<const Product<double>> products) {
    for (size_t n = 0; n < products[0].w->rows; ++n) {
      float sum = 0;
      const std::vector<float> row = widen_row(*products[0].w, n);
      for (size_t i = 0; i < row.size(); ++i) sum += static_cast<float>(in[i]) * row[i];
      products[0].y[n] = static_cast<double>(sum);
    }
  };
  fill(21);
  CHECK_THROWS_AS(checked_product(x.data(), 1, 300, w.data(), 10, y.data(), single), std::logic_error);
}

TEST_CASE("certify: balls hold what the page gives in plain balls of 500 bits, at every hook", "[certify]") {
  for (const char* name : tiny_models) {
    const Model model = Model::open(outputs + name);
    for (const Softmax softmax : {Softmax::standard, Softmax::one}) {
      CAPTURE(name, softmax == Softmax::one);
      set_kernel();
      BallRun run;
      run.tokens = some_tokens(model, 11);
      run.softmax = softmax;
      const Trace truth = by_page<false>(model, run.tokens, of_truth, softmax);
      const Compared found = compare(traced(model, run, bits_needed(model.config().layers)), truth);
      CHECK(found.inside > 30000);
      CHECK(found.outside == 0);
    }
  }
}

TEST_CASE("certify: a weight off by one ulp, or an exp that is rounded and does not say so, leaves the balls",
          "[certify]") {
  set_kernel();
  const Model model = Model::open(outputs + "tiny_llama3");
  BallRun run;
  run.tokens = some_tokens(model, 9);
  const Trace balls = traced(model, run, bits_needed(model.config().layers));
  std::vector<float> copy;
  const Model other(model.checkpoint(), model.config(), [&](size_t layer, LayerWeights& w) {
    if (layer != 0) return;
    for (size_t n = 0; n < w.wq.rows; ++n) {
      const std::vector<float> row = widen_row(w.wq, n);
      copy.insert(copy.end(), row.begin(), row.end());
    }
    copy[7] = std::nextafter(copy[7], 9.0f);
    w.wq = matrix_of(copy, w.wq.rows, w.wq.cols);
  });
  const Compared moved = compare(balls, traced(other, run, of_truth));
  CHECK(moved.inside > 1000);  // what comes before, and what does not see it
  CHECK(moved.apart > moved.inside);
  CHECK(compare(by_page<true>(model, run.tokens, 146, Softmax::standard), traced(model, run, of_truth)).outside > 1000);
}

/// PyTorch's fp32 cos and sin, of which some are off by one ulp, as a golden with q and rot_q shows them.
BallRun with_table_of(const std::filesystem::path& path, const ModelConfig& config) {
  const TraceFile golden = TraceFile::open(path);
  const std::vector<double> q = golden.values("blocks.0.attn.hook_q");
  const std::vector<double> rotated = golden.values("blocks.0.attn.hook_rot_q");
  const size_t half = config.head_dim / 2, width = config.heads * config.head_dim;
  BallRun run;
  run.rope = RopeTable::given;
  for (size_t p = 0; p < q.size() / width; ++p)
    for (size_t i = 0; i < half; ++i) {
      const double a = q[p * width + i], b = q[p * width + half + i];
      const double u = rotated[p * width + i], v = rotated[p * width + half + i], square = a * a + b * b;
      run.cosines.push_back(static_cast<float>((a * u + b * v) / square));
      run.sines.push_back(static_cast<float>((a * v - b * u) / square));
    }
  return run;
}

TEST_CASE("certify: Hugging Face's true float64 lies within 1e-12 of the proved values", "[certify]") {
  const auto agrees = [](const Model& model, const std::filesystem::path& path, BallRun run) {
    INFO(path);
    set_kernel();
    const GoldenFile golden(path, model);
    run.tokens = golden.tokens;
    run.patch = golden.patch;
    size_t compared = 0;
    run_balls(model, run, bits_needed(model.config().layers), model.config().layers, true,
              [&](Hook hook, size_t head, size_t first, const Matrix<Ball>& values) {
                for (const GoldenFile::Tensor& tensor : golden.tensors) {
                  if (tensor.hook != hook || tensor.norm) continue;
                  double squares = 0, count = 0;
                  for (const double x : tensor.truth)
                    if (std::isfinite(x)) squares += x * x, ++count;
                  const double rms = std::sqrt(squares / count);
                  for (size_t r = 0; r < golden.positions.size(); ++r) {
                    const size_t p = golden.positions[r];
                    if (p < first || p >= first + values.rows) continue;
                    const double* truth = &tensor.truth[(head * tensor.rows + r) * tensor.width];
                    double worst = 0;
                    for (size_t i = 0; i < tensor.width; ++i) {
                      if (!std::isfinite(truth[i])) continue;
                      const Ball difference = values[p - first][i] - Ball(truth[i]);
                      worst = std::max(worst, std::fabs(arf_get_d(difference.middle(), ARF_RND_UP)));
                      ++compared;
                    }
                    INFO(tensor.name << ", position " << p);
                    if (!(worst <= 1e-12 * rms)) CHECK(worst <= 1e-12 * rms);
                  }
                }
              },
              {});
    CHECK(compared > 100);
  };
  for (const char* name : tiny_models) {
    const Model model = Model::open(outputs + name);
    const BallRun run = with_table_of(outputs + name + "/golden_prompt.safetensors", model.config());
    for (const char* golden : {"prompt", "patched", "one", "one_patched"})
      agrees(model, outputs + name + "/golden_" + golden + ".safetensors", run);
  }
}

TEST_CASE("certify: every activation of SmolLM2 and eight tokens is known to be correctly rounded",
          "[certify][smollm2]") {
  REQUIRE(std::filesystem::exists(smollm2));
  const Model model = Model::open(smollm2);
  CertifyRequest request;
  request.tokens = {504, 1776, 216, 30, 28, 999, 17, 5};
  request.hooks = all_hooks(model.config().layers);
  const Certificate certificate = certify(model, request);
  CHECK(certificate.decided > 3000000);
  CHECK(certificate.undecided == 0);
  CHECK(certificate.argmax->proved);
}

TEST_CASE("certify: the same bytes from every kernel and number of threads", "[certify]") {
  for (const char* name : {"tiny_llama2", "tiny_mistral"}) {
    const Model model = Model::open(outputs + name);
    CertifyRequest request;
    request.tokens = some_tokens(model, 36);
    request.hooks = all_hooks(model.config().layers);
    request.digits = 20;
    const Certificate first = certify(model, request);
    CHECK(first.undecided == 0);
    std::vector<std::string> kernels = available_kernels();
    kernels.push_back("openblas");
    for (const std::string& kernel : kernels)
      for (const size_t threads : {1, 3}) {
        CAPTURE(name, kernel, threads);
        request.kernel = kernel;
        set_thread_count(threads);
        const Certificate again = certify(model, request);
        set_thread_count(0);
        REQUIRE(again.tensors.size() == first.tensors.size());
        for (size_t i = 0; i < first.tensors.size(); ++i) {
          const CertifiedTensor &a = first.tensors[i], &b = again.tensors[i];
          REQUIRE(a.values.size() == b.values.size());
          for (size_t head = 0; head < a.values.size(); ++head) REQUIRE(a.values[head].values == b.values[head].values);
          CHECK(a.radius == b.radius);
          REQUIRE(a.enclosures == b.enclosures);
        }
      }
  }
}

TEST_CASE("certify: rounding to fp32 knows ties, subnormals, infinity and what cannot be decided", "[certify]") {
  Ball::precision = 200;
  const auto rounded = [](double x) { return round_to_fp32(Ball(x)); };
  const auto is = [](const Rounded& r, float value, bool tie) { return r.value == value && r.decided && r.tie == tie; };
  CHECK(is(rounded(1), 1, false));
  CHECK(is(rounded(1 + 0x1p-24), 1, true));
  CHECK(is(rounded(1 + 0x3p-24), 1 + 0x1p-22f, true));
  CHECK(is(rounded(-1 - 0x1.8p-24), -1 - 0x1p-23f, false));
  CHECK(is(rounded(0x1p-149), 0x1p-149f, false));
  CHECK(is(rounded(0x1p-150), 0, true));
  CHECK(is(rounded(0x1.8p-150), 0x1p-149f, false));
  CHECK(is(rounded(0x1.8p-149), 0x1p-148f, true));
  CHECK(is(rounded(0x1.4p-149), 0x1p-149f, false));
  CHECK(is(rounded(0x1p-300), 0, false));
  CHECK(is(rounded(0x1.fffffep127), 0x1.fffffep127f, false));
  CHECK(is(rounded(0x1.fffffefp127), 0x1.fffffep127f, false));
  CHECK(is(rounded(-0x1p128), -std::numeric_limits<float>::infinity(), false));
  Ball third(1), boundary(1 + 0x1p-24);
  arb_div_ui(third.get(), third.get(), 3, 200);
  CHECK(is(round_to_fp32(third), 1.0f / 3, false));
  mag_set_ui_2exp_si(arb_radref(boundary.get()), 1, -190);
  CHECK(!round_to_fp32(boundary).decided);
  arb_add_error_2exp_si(third.get(), -20);
  CHECK(!round_to_fp32(third).decided);
  Ball near_zero;
  arb_add_error_2exp_si(near_zero.get(), -151);
  CHECK(is(round_to_fp32(near_zero), 0, false));
  arb_add_error_2exp_si(near_zero.get(), -149);
  CHECK(!round_to_fp32(near_zero).decided);
  // 2^-25 below the boundary by less than a double can tell.
  Ball close(1 + 0x1p-24), little(0x1p-150);
  CHECK(is(round_to_fp32(close - little), 1, false));
  CHECK(is(round_to_fp32(close + little), 1 + 0x1p-23f, false));
  CHECK(magnitude_text(Ball(1).radius()) == "0");
  mag_set_ui_2exp_si(arb_radref(near_zero.get()), 1, -100);
  CHECK(magnitude_text(near_zero.radius()) == "7.9e-31");  // 7.888…e-31
}

TEST_CASE("certify: claims are proved, disproved or left undecided", "[certify]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  CertifyRequest request;
  request.tokens = some_tokens(model, 9);
  request.hooks = {{HookPoint::Logits, 0}};
  request.ablation = {{1, {3, 4, 5}}};
  const size_t token = certify(model, request).argmax->token;
  const std::string best = std::to_string(token), other = std::to_string(token + 1);
  request.claims_file = "claims";
  request.claims = "# what is true\n"
                   "argmax(logits[-1]) = " + best + "\n"
                   "argmax(logits[-1]) = " + other + "   # it is not\n"
                   "logits[-1," + best + "] - logits[-1," + other + "] > 0\n"
                   "norm(blocks.1.hook_resid_post[8]) > 1e6 * norm(hook_embed[8])\n"
                   "blocks.2.attn.hook_pattern[:,3,0:4] > 0\n"
                   "sum(blocks.2.attn.hook_pattern[0,3,:4]) <= 1\n"
                   "abs(sum(blocks.2.attn.hook_pattern[0,3,:4]) - 1) < 1e-20\n"
                   "norm(blocks.1.mlp.hook_post[2,3:6]) <= 0\n"
                   "norm(original:blocks.1.mlp.hook_post[2,3:6]) > 0\n"
                   "norm(blocks.1.hook_resid_post - original:blocks.1.hook_resid_post) > 1e-6\n"
                   "hook_embed - original:hook_embed <= 0\n";
  const std::vector<ClaimResult> results = certify(model, request).claims;
  std::vector<std::string> verdicts;
  for (const ClaimResult& result : results) verdicts.push_back(proof_name(result.proof));
  CHECK(verdicts == std::vector<std::string>{"proved", "disproved", "proved", "disproved", "proved", "undecided",
                                             "proved", "proved", "proved", "proved", "proved"});
  request.claims = std::string(30, '(') + "1" + std::string(30, ')') + " < " + std::string(20, '-') + "2";
  CHECK(certify(model, request).claims.size() == 1);
  const std::string deep = std::string(100000, '(') + "1" + std::string(100000, ')') + " < 2", signs = std::string(100000, '-') + "1 < 2";
  for (const char* bad : {deep.c_str(), signs.c_str(), "", "# nothing", "logits[-1]", "logits[9] > 0", "logits[0,0,0] > 0", "norm(logits > 0",
                          "logits < hook_embed", "x > 1", "argmax(logits[0]) = 100000", "logits[3:3] > 0", "1 > 1..2", "logits[0,1] > 0 1"}) {
    CAPTURE(bad);
    request.claims = bad;
    CHECK_THROWS_AS(certify(model, request), InputError);
  }
}

TEST_CASE("certify: the precision is found, and one that is too small is said to be so", "[certify]") {
  const Model model = Model::open(outputs + "tiny_mistral");
  CertifyRequest request;
  request.tokens = some_tokens(model, 12);
  request.hooks = all_hooks(model.config().layers);
  request.bits = 32;
  CHECK_THROWS_AS(certify(model, request), InputError);
  request.bits = 100000;  // more than attention's products hold
  CHECK_THROWS_AS(certify(model, request), InputError);
  request.bits = 90;
  const Certificate few = certify(model, request);
  request.bits.reset();
  const Certificate enough = certify(model, request);
  CHECK(few.undecided > 0);
  CHECK(enough.undecided == 0);
  CHECK(few.decided + few.undecided == enough.decided);
  // What was decided with fewer bits was decided rightly.
  for (size_t i = 0; i < few.tensors.size(); ++i)
    for (size_t head = 0; head < few.tensors[i].values.size(); ++head) {
      const Matrix<float>&a = few.tensors[i].values[head], &b = enough.tensors[i].values[head];
      for (size_t k = 0; k < a.values.size(); ++k) {
        const auto& undecided = few.tensors[i].undecided;
        const size_t place = head * a.values.size() + k;
        if (!std::binary_search(undecided.begin(), undecided.end(), place)) REQUIRE(a.values[k] == b.values[k]);
      }
    }
}

TEST_CASE("certify: what real angles change in RoPE is little, and is there", "[certify]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  CertifyRequest request;
  request.tokens = some_tokens(model, 12);
  request.hooks = {{HookPoint::RotQ, 0}};
  const Certificate stored = certify(model, request);
  request.rope = RopeTable::real;
  const Certificate real = certify(model, request);
  const Lines<float>&a = stored.tensors[0].values[0].values, &b = real.tensors[0].values[0].values;
  size_t changed = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    changed += a[i] != b[i];
    CHECK(std::fabs(a[i] - b[i]) <= 1e-4f * (1 + std::fabs(a[i])));
  }
  CHECK(changed > a.size() / 10);
}

TEST_CASE("certify: rows and the widest ball are those of the whole tensors", "[certify]") {
  const Model model = Model::open(outputs + "tiny_mistral");
  CertifyRequest request;
  request.tokens = some_tokens(model, 12);
  request.hooks = {{HookPoint::AttnScores, 1}, {HookPoint::MlpOut, 2}, {HookPoint::Logits, 0}};
  request.digits = 30;
  request.rows = {{request.hooks[0], 2, 7}, {request.hooks[1], 0, 11}, {request.hooks[2], 0, 0}};
  const Certificate certificate = certify(model, request);
  REQUIRE(certificate.rows.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    const CertifiedRow& row = certificate.rows[i];
    const CertifiedTensor& tensor = certificate.tensors[i];
    const Matrix<float>& values = tensor.values[request.rows[i].head];
    const size_t p = request.rows[i].position;
    REQUIRE(row.rounded.size() == values.cols);
    CHECK(row.undecided == 0);
    for (size_t c = 0; c < values.cols; ++c) {
      CHECK(row.rounded[c] == values[p][c]);
      CHECK(static_cast<float>(row.nearest[c]) == values[p][c]);
      CHECK(row.enclosures[c] == tensor.enclosures[(request.rows[i].head * 12 + p) * values.cols + c]);
    }
    REQUIRE(tensor.widest);
    // Its middle lies in the decimal that is printed of it.
    Ball middle, printed;
    REQUIRE(arf_load_str(arb_midref(middle.get()), tensor.widest->centre.c_str()) == 0);
    REQUIRE(arb_set_str(printed.get(), tensor.enclosures[tensor.widest->at].c_str(), 300) == 0);
    CHECK(arb_contains(printed.get(), middle.get()));
  }
}

TEST_CASE("certify: a run costs what its claims need, twice where they speak of the original", "[certify]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const auto cost = [&](const std::string& claims) {
    CertifyRequest request;
    request.tokens = some_tokens(model, 9);
    request.ablation = {{1, {3}}};
    request.claims = claims;
    return certify_cost(model.config(), request).processor_seconds;
  };
  const double early = cost("norm(blocks.0.hook_resid_post[0]) > 0"), late = cost("norm(blocks.3.hook_resid_post[0]) > 0");
  CHECK(early < late);
  CHECK(late < cost("norm(logits[0]) > 0"));
  CHECK(cost("norm(blocks.3.hook_resid_post[0]) < norm(original:blocks.3.hook_resid_post[0])") == 2 * late);
  CHECK(cost("norm(original:blocks.3.hook_resid_post[0]) > 0") == late);
}

TEST_CASE("certify: norms() has one number for each row", "[certify]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  CertifyRequest request;
  request.tokens = some_tokens(model, 9);
  request.claims_file = "claims";
  const auto verdict = [&](const std::string& claim) {
    request.claims = claim;
    return std::string(proof_name(certify(model, request).claims.at(0).proof));
  };
  CHECK(verdict("norms(hook_embed[2:3]) - norm(hook_embed[2]) <= 0") == "undecided");  // equal, and irrational
  CHECK(verdict("abs(norms(hook_embed[2:3]) - norm(hook_embed[2])) < 1e-15") == "proved");
  CHECK(verdict("abs(sum(norms(blocks.1.hook_resid_post[2:5])) - norm(blocks.1.hook_resid_post[2])"
                " - norm(blocks.1.hook_resid_post[3]) - norm(blocks.1.hook_resid_post[4])) < 1e-15") == "proved");
  CHECK(verdict("abs(sum(norms(blocks.1.attn.hook_pattern[1,:,:])) - norm(blocks.1.attn.hook_pattern[1,0])) < 1e-15") ==
        "disproved");
  CHECK_THROWS_AS(verdict("norms(1) > 0"), InputError);
  CHECK_THROWS_AS(verdict("norms(logits[0] + logits[1]) > 0"), InputError);
}

TEST_CASE("certify: what was measured of a planted sink is proved, and what was not is disproved", "[certify]") {
  const PlantedModel planted({{3, 0.55}, {9, 0.45}});
  const Model model = planted.open();
  Experiment experiment{model, "model", {}, stimuli_for(model, planted_stimuli()), "fp32", {}, {}};
  experiment.prover = cli::prover_for(model);
  Results results = measure(experiment, panels_of({"certified"}));
  const auto verdicts = [&] {
    std::map<std::string, std::vector<std::string>> all;
    for (const CertifiedRun& run : results.get<CertifiedClaims>().runs) {
      CHECK(run.left_out.empty());
      for (const ClaimResult& claim : run.claims) all[run.about].push_back(proof_name(claim.proof));
    }
    return all;
  };
  const auto measured = verdicts();
  CHECK(measured.at("sink") == std::vector<std::string>{"proved", "proved"});
  CHECK(measured.at("neurons") == std::vector<std::string>{"proved", "proved"});
  for (const auto& [about, of_run] : measured)
    for (const std::string& verdict : of_run) CHECK(verdict == "proved");
  results.sinks.at(0).neurons = {4};
  measure_certified(experiment, results);
  CHECK(verdicts().at("neurons") == std::vector<std::string>{"disproved", "disproved"});
}
