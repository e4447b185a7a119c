// The page that defines every bit, held against the fast forward pass with ==, and read with a number
// that it has never seen.

#include "sinkref/definition.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <map>

#include "sinkref/forward.h"
#include "sinkref/interventions.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const char* const tiny_models[] = {"tiny_llama1", "tiny_llama2", "tiny_llama3", "tiny_mistral"};

/// (hook, head, position) -> values; of attention those of visible keys and of masked ones before them.
template <class T>
using Trace = std::map<std::tuple<std::string, size_t, size_t>, std::vector<T>>;

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
std::string first_difference(const Trace<T>& a, const Trace<T>& b) {
  if (a.empty()) return "nothing was traced";
  for (const auto& [key, values] : a) {
    const auto found = b.find(key);
    if (found == b.end() || !same_bits(values, found->second))
      return std::get<0>(key) + ", head " + std::to_string(std::get<1>(key)) + ", position " +
             std::to_string(std::get<2>(key));
  }
  return a.size() == b.size() ? "" : "the second has more rows";
}

template <class N>
Trace<N> by_page(const Model& model, const std::vector<int>& tokens, size_t piece, Softmax softmax,
                 size_t end_block = SIZE_MAX) {
  Trace<N> trace;
  definition::Past<N> past(model.config());
  for (size_t first = 0; first < tokens.size(); first += piece) {
    const size_t count = std::min(piece, tokens.size() - first);
    const auto observe = [&](Hook hook, size_t head, Matrix<N>& values) {
      for (size_t r = 0; r < values.rows; ++r) {
        const size_t width = is_attention(hook.point) ? first + r + 1 : values.cols;
        trace[{hook_name(hook), head, first + r}] = {values[r], values[r] + width};
      }
    };
    definition::forward<N>(model, {tokens.data() + first, count}, past, 0,
                           std::min(end_block, model.config().layers), true, softmax, {observe});
  }
  return trace;
}

struct Setting {
  std::string kernel = "auto";
  size_t chunk = 512, decode_from = SIZE_MAX;
  Softmax softmax = Softmax::standard;
  std::vector<Neurons> patch;
};

template <class T>
Trace<T> by_forward(const Model& model, const std::vector<int>& tokens, const Setting& setting) {
  Trace<T> trace;
  Hooks<T> hooks;
  add_patch(setting.patch, hooks);
  for (const Hook hook : all_hooks(model.config().layers))
    hooks.add(hook, [&trace](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) {
        const size_t position = a.rows[r].position;
        const size_t width = is_attention(a.hook.point) ? position + 1 : a.width;
        trace[{hook_name(a.hook), a.head, position}] = {a.row(r), a.row(r) + width};
      }
    });
  RunOptions options;
  options.kernel = setting.kernel;
  options.chunk = setting.chunk;
  options.softmax = setting.softmax;
  Forward<T> forward(model, options);
  std::vector<Sequence<T>> one;
  const size_t prompt = std::min(setting.decode_from, tokens.size());
  one.push_back(forward.start({tokens.begin(), tokens.begin() + static_cast<long>(prompt)}));
  forward.run(one, hooks);
  for (size_t i = prompt; i < tokens.size(); ++i) {
    one[0].pending = {tokens[i]};
    forward.run(one, hooks, false);
  }
  return trace;
}

/// Ordinary tokens, then a run of one: long enough for several panels of keys and the tiny window.
std::vector<int> some_tokens(const Model& model, size_t n) {
  std::vector<int> tokens;
  for (size_t i = 0; i < n; ++i)
    tokens.push_back(static_cast<int>((i < n / 2 ? i * i * 31 + i * 17 + 7 : 42) % model.config().vocab_size));
  return tokens;
}

template <class T>
void holds_for(const char* name) {
  const Model model = Model::open(outputs + name);
  const std::vector<int> tokens = some_tokens(model, 41);
  for (const Softmax softmax : {Softmax::standard, Softmax::one}) {
    INFO(name << (softmax == Softmax::one ? ", softmax_1" : ""));
    const Trace<T> page = by_page<T>(model, tokens, tokens.size(), softmax);
    CHECK(page.size() > 41 * model.config().layers * 20);
    CHECK(first_difference(page, by_page<T>(model, tokens, 1, softmax)) == "");
    for (const std::string& kernel : available_kernels()) {
      CAPTURE(kernel);
      CHECK(first_difference(page, by_forward<T>(model, tokens, {kernel, 512, SIZE_MAX, softmax, {}})) == "");
      CHECK(first_difference(page, by_forward<T>(model, tokens, {kernel, 7, 30, softmax, {}})) == "");
    }
  }
}

/// A closed interval whose ends are rounded outwards: a number with a proven error, which the page has
/// never heard of.
struct Interval {
  double low = 0, high = 0;
  Interval() = default;
  Interval(double x) : low(x), high(x) {}
  Interval(double a, double b) : low(down(a)), high(up(b)) {}
  static double down(double x) { return std::nextafter(x, -std::numeric_limits<double>::infinity()); }
  static double up(double x) { return std::nextafter(x, std::numeric_limits<double>::infinity()); }
  static Interval around(std::initializer_list<double> ends) { return {std::min(ends), std::max(ends)}; }
  friend Interval operator+(Interval a, Interval b) { return {a.low + b.low, a.high + b.high}; }
  friend Interval operator-(Interval a, Interval b) { return {a.low - b.high, a.high - b.low}; }
  friend Interval operator-(Interval a) { return {-a.high, -a.low}; }
  friend Interval operator*(Interval a, Interval b) {
    return around({a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high});
  }
  friend Interval operator/(Interval a, Interval b) {
    if (b.low <= 0 && b.high >= 0) throw std::logic_error("division by an interval that holds 0");
    return around({a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high});
  }
  friend bool operator<(Interval a, Interval b) { return a.low + a.high < b.low + b.high; }
};

}  // namespace

namespace sinkref {
template <>
struct Number<Interval> {
  using Wide = Interval;
  static Interval wide(Interval x) { return x; }
  static Interval narrow(Interval x) { return x; }
  static Interval sqrt(Interval x) { return {std::sqrt(x.low), std::sqrt(x.high)}; }
  static Interval fma(Interval a, Interval b, Interval c) { return a * b + c; }
  static Interval exp(Interval x) {  // exp_spec is good to one ulp
    return {Interval::down(exp_spec(x.low)), Interval::up(exp_spec(x.high))};
  }
};
}  // namespace sinkref

TEST_CASE("definition: the fast forward pass gives the page's bits at every hook, fp32", "[definition]") {
  for (const char* name : tiny_models) holds_for<float>(name);
}

TEST_CASE("definition: the fast forward pass gives the page's bits at every hook, fp64", "[definition]") {
  for (const char* name : tiny_models) holds_for<double>(name);
}

TEST_CASE("definition: run by the page, patch and ablation change what they change in the fast pass",
          "[definition]") {
  for (const char* name : tiny_models) {
    const Model model = Model::open(outputs + name);
    const std::vector<int> tokens = some_tokens(model, 23);
    const std::vector<Neurons> patch = {{0, {3, 17}}, {1, {5}}};
    const Trace<float> plain = by_forward<float>(model, tokens, {});
    for (const Softmax softmax : {Softmax::standard, Softmax::one}) {
      const Trace<float> page = by_forward<float>(model, tokens, {"spec", 512, SIZE_MAX, softmax, patch});
      INFO(name);
      CHECK(first_difference(page, plain) != "");
      for (const std::string& kernel : available_kernels())
        for (const size_t decode_from : {SIZE_MAX, size_t{9}}) {
          CAPTURE(kernel, decode_from);
          CHECK(first_difference(page, by_forward<float>(model, tokens, {kernel, 5, decode_from, softmax, patch})) == "");
        }
    }
  }
}

TEST_CASE("definition: one bit of one activation is seen by the comparison", "[definition]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const Trace<float> page = by_page<float>(model, some_tokens(model, 5), 5, Softmax::standard);
  for (const char* hook : {"blocks.1.attn.hook_pattern", "logits"}) {
    Trace<float> other = page;
    float& value = other.at({hook, 0, 3})[2];
    value = std::nextafter(value, 2 * value);
    CHECK(first_difference(page, other) == std::string(hook) + ", head 0, position 3");
    other = page;
    other.erase({hook, 0, 3});
    CHECK(first_difference(page, other) != "");
  }
}

// Plain intervals widen with every block, so one block is all that they can say something of.
TEST_CASE("definition: read with intervals, every float64 activation of a block lies in its interval",
          "[definition]") {
  for (const char* name : {"tiny_llama2", "tiny_mistral"}) {
    const Model model = Model::open(outputs + name);
    const std::vector<int> tokens = some_tokens(model, 6);
    const Trace<double> exact = by_page<double>(model, tokens, 6, Softmax::standard, 1);
    const Trace<float> single = by_page<float>(model, tokens, 6, Softmax::standard, 1);
    const Trace<Interval> proved = by_page<Interval>(model, tokens, 6, Softmax::standard, 1);
    REQUIRE(proved.size() == exact.size());
    size_t outside = 0;
    double widest = 0, error_of_fp32 = 0;
    for (const auto& [key, values] : proved)
      for (size_t i = 0; i < values.size(); ++i) {
        const double x = exact.at(key)[i];
        outside += !(values[i].low <= x && x <= values[i].high);
        if (!std::isfinite(x)) continue;
        widest = std::max(widest, values[i].high - values[i].low);
        error_of_fp32 = std::max(error_of_fp32, std::fabs(single.at(key)[i] - x));
      }
    INFO(name);
    CHECK(outside == 0);
    CHECK(widest > 0);
    CHECK(widest < error_of_fp32);  // they tell float64 from fp32
  }
}

TEST_CASE("definition: SmolLM2's fast forward pass gives the page's bits at every hook", "[definition][smollm2]") {
  const std::string file = SINKREF_SOURCE_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  REQUIRE(std::filesystem::exists(file));
  const Model model = Model::open(file);
  const std::vector<int> tokens = some_tokens(model, 5);
  const Trace<float> page = by_page<float>(model, tokens, 5, Softmax::standard);
  CHECK(first_difference(page, by_forward<float>(model, tokens, {})) == "");
  CHECK(first_difference(page, by_forward<float>(model, tokens, {"auto", 2, 3, Softmax::standard, {}})) == "");
}
