#include "certify/claims.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <functional>
#include <sstream>

#include "sinkref/error.h"

namespace sinkref {

namespace {

using Values = std::vector<Ball>;
using Side = std::function<Values()>;

constexpr slong shown_digits = 12;

std::string shown(const Ball& x) {
  char* text = arb_get_str(x.get(), shown_digits, 0);
  std::string copy = text;
  flint_free(text);
  return copy;
}

/// Element by element; a single number goes with each.
template <class F>
Values element_by_element(const Values& a, const Values& b, const F& f) {
  Values y(std::max(a.size(), b.size()));
  for (size_t i = 0; i < y.size(); ++i) y[i] = f(a[a.size() == 1 ? 0 : i], b[b.size() == 1 ? 0 : i]);
  return y;
}

Values sum(const Values& x) {
  Ball total;
  for (const Ball& value : x) total = total + value;
  return {total};
}

Values norm(const Values& x) {
  Ball squares;
  for (const Ball& value : x) {
    Ball square;
    arb_sqr(square.get(), value.get(), Ball::precision);
    squares = squares + square;
  }
  return {Number<Ball>::sqrt(squares)};
}

Values absolute(Values x) {
  for (Ball& value : x) arb_abs(value.get(), value.get());
  return x;
}

/// What holds of every number in the one ball and of every number in the other.
Proof compare(const Ball& a, const Ball& b, const std::string& relation) {
  const bool less = relation[0] == '<', or_equal = relation.size() == 2;
  const Ball &small = less ? a : b, &large = less ? b : a;
  if (or_equal ? arb_le(small.get(), large.get()) : arb_lt(small.get(), large.get())) return Proof::proved;
  if (or_equal ? arb_gt(small.get(), large.get()) : arb_ge(small.get(), large.get())) return Proof::disproved;
  return Proof::undecided;
}

/// All must hold; one that does not disproves them.
void also(Proof& all, Proof one) {
  if (all == Proof::disproved || one == Proof::disproved) all = Proof::disproved;
  else if (one == Proof::undecided) all = Proof::undecided;
}

}  // namespace

/// What a claim reads of one tensor of one run.
struct Claims::Tensor {
  bool original;
  Hook hook;
  size_t first_head, heads, first_row, rows;  ///< heads of scores and pattern; positions
  std::vector<size_t> columns;
  Values values;
};

struct Claims::Claim {
  std::string text, relation;  ///< "=" for argmax
  Side left, right;
  size_t token = 0;  ///< of argmax

  ClaimResult result() const;
};

ClaimResult Claims::Claim::result() const {
  const Values a = left();
  if (relation == "=") {
    Proof proof = Proof::proved;
    size_t best = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[best] < a[i]) best = i;
      if (i != token) also(proof, compare(a[i], a[token], "<"));
    }
    return {text, proof, shown(a[token]), "largest " + std::to_string(best) + ": " + shown(a[best])};
  }
  const Values b = right();
  Proof proof = Proof::proved;
  size_t worst = 0;  // where the claim is nearest to being false
  const auto at = [](const Values& x, size_t i) -> const Ball& { return x[x.size() == 1 ? 0 : i]; };
  Ball least;
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    also(proof, compare(at(a, i), at(b, i), relation));
    const Ball margin = relation[0] == '<' ? at(b, i) - at(a, i) : at(a, i) - at(b, i);
    if (i > 0 && !(margin < least)) continue;
    worst = i;
    least = margin;
  }
  return {text, proof, shown(at(a, worst)), shown(at(b, worst))};
}

/// One line, from left to right.
class Claims::Parser {
 public:
  Parser(std::string line, std::string where, const ModelConfig& config, size_t positions,
         std::vector<std::unique_ptr<Tensor>>& tensors)
      : line_(std::move(line)), where_(std::move(where)), config_(config), positions_(positions), tensors_(tensors) {}

  Claim parse() {
    Claim claim;
    claim.text = line_;
    if (takes_word("argmax")) {
      expect('(');
      const auto [side, size] = parse_side();
      expect(')');
      expect('=');
      claim.relation = "=";
      claim.left = side;
      claim.token = index(size);
    } else {
      const auto [left, left_size] = parse_side();
      claim.relation = parse_relation();
      const auto [right, right_size] = parse_side();
      require_sizes(left_size, right_size);
      claim.left = left;
      claim.right = right;
    }
    blanks();
    if (at_ < line_.size()) fail("has " + quoted(line_.substr(at_)) + " after its end");
    return claim;
  }

 private:
  struct Sized {
    Side side;
    size_t size;
  };

  [[noreturn]] void fail(const std::string& problem) const {
    refuse(where_, problem + ", expected a claim", "sinkref certify --help shows what one looks like");
  }

  void blanks() {
    while (at_ < line_.size() && std::isspace(static_cast<unsigned char>(line_[at_]))) ++at_;
  }
  bool takes(char c) {
    blanks();
    if (at_ == line_.size() || line_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!takes(c)) fail("lacks a '" + std::string(1, c) + "' before " + quoted(line_.substr(at_)));
  }
  std::string word() const {
    size_t end = at_;
    const auto of_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; };
    while (end < line_.size() && of_name(line_[end])) ++end;
    return line_.substr(at_, end - at_);
  }
  bool takes_word(const std::string& wanted) {
    blanks();
    if (word() != wanted) return false;
    at_ += wanted.size();
    return true;
  }

  std::string parse_relation() {
    for (const char* relation : {"<=", ">=", "<", ">"}) {
      blanks();
      if (line_.compare(at_, std::string(relation).size(), relation) != 0) continue;
      at_ += std::string(relation).size();
      return relation;
    }
    fail("has no <, <=, > or >= before " + quoted(line_.substr(at_)));
  }

  size_t require_sizes(size_t a, size_t b) const {
    if (a != b && a != 1 && b != 1)
      fail("compares " + std::to_string(a) + " numbers with " + std::to_string(b));
    return std::max(a, b);
  }

  /// a {+ b}: operators of one rank, with what they stand between.
  template <class Next, class F>
  Sized chain_of(const Next& next, char one, char other, const F& apply) {
    Sized a = next();
    for (;;) {
      const char op = takes(one) ? one : takes(other) ? other : '\0';
      if (op == '\0') return a;
      const Sized b = next();
      const size_t size = require_sizes(a.size, b.size);
      a = {[a = a.side, b = b.side, op, apply] {
             return element_by_element(a(), b(), [&](const Ball& x, const Ball& y) { return apply(op, x, y); });
           },
           size};
    }
  }
  /// What stands within brackets and signs: each takes a part of the stack.
  struct Deeper {
    explicit Deeper(Parser& parser) : depth(parser.depth_) {
      constexpr size_t most = 64;
      if (++depth > most) parser.fail("stands in more than " + std::to_string(most) + " brackets and signs");
    }
    ~Deeper() { --depth; }
    size_t& depth;
  };
  Sized parse_side() {
    const Deeper deeper(*this);
    return chain_of([&] { return parse_term(); }, '+', '-',
                    [](char op, const Ball& x, const Ball& y) { return op == '+' ? x + y : x - y; });
  }
  Sized parse_term() {
    return chain_of([&] { return parse_factor(); }, '*', '/',
                    [](char op, const Ball& x, const Ball& y) { return op == '*' ? x * y : x / y; });
  }

  Sized parse_factor() {
    if (takes('-')) {
      const Deeper deeper(*this);
      const Sized x = parse_factor();
      return {[x = x.side] { return element_by_element({Ball(0)}, x(), std::minus<Ball>()); }, x.size};
    }
    if (takes('(')) {
      Sized x = parse_side();
      expect(')');
      return x;
    }
    blanks();
    if (at_ < line_.size() && std::isdigit(static_cast<unsigned char>(line_[at_]))) return parse_decimal();
    const std::string name = word();
    const auto call = [&](auto f, size_t size_of_list) -> Sized {
      at_ += name.size();
      expect('(');
      const Sized x = parse_side();
      expect(')');
      return {[f, x = x.side] { return f(x()); }, size_of_list == 0 ? x.size : size_of_list};
    };
    if (name == "norms") {
      at_ += name.size();
      return parse_norms();
    }
    if (name == "norm") return call(norm, 1);
    if (name == "sum") return call(sum, 1);
    if (name == "abs") return call(absolute, 0);
    return parse_tensor();
  }

  Sized parse_norms() {
    expect('(');
    const Sized rows = parse_tensor();
    const size_t width = tensors_.back()->columns.size();
    expect(')');
    return {[rows = rows.side, width] {
              const Values all = rows();
              Values norms;
              for (auto row = all.begin(); row != all.end(); row += static_cast<long>(width))
                norms.push_back(norm({row, row + static_cast<long>(width)})[0]);
              return norms;
            },
            rows.size / width};
  }

  Sized parse_decimal() {
    size_t end = at_;
    while (end < line_.size() && (std::isdigit(static_cast<unsigned char>(line_[end])) || line_[end] == '.')) ++end;
    if (end < line_.size() && (line_[end] == 'e' || line_[end] == 'E')) {
      ++end;
      if (end < line_.size() && (line_[end] == '-' || line_[end] == '+')) ++end;
      while (end < line_.size() && std::isdigit(static_cast<unsigned char>(line_[end]))) ++end;
    }
    const std::string text = line_.substr(at_, end - at_);
    at_ = end;
    if (arb_set_str(Ball().get(), text.c_str(), Ball::precision) != 0) fail("has the malformed number " + quoted(text));
    return {[text] {
              Values value(1);
              arb_set_str(value[0].get(), text.c_str(), Ball::precision);
              return value;
            },
            1};
  }

  Sized parse_tensor() {
    const bool original = takes_word("original");
    if (original) expect(':');
    blanks();
    const std::string name = word();
    at_ += name.size();
    const std::vector<Hook> all = all_hooks(config_.layers);
    const auto hook = std::find_if(all.begin(), all.end(), [&](Hook h) { return hook_name(h) == name; });
    if (hook == all.end())
      fail("has " + quoted(name.empty() ? line_.substr(at_) : name) + " in the place of a number or a tensor");
    std::vector<size_t> shape = hook_shape(hook->point, config_);
    if (is_attention(hook->point)) shape.insert(shape.end(), {positions_, positions_});
    else shape.insert(shape.begin(), positions_);
    std::vector<Visible> ranges;
    if (takes('[')) {
      do {
        if (ranges.size() == shape.size())
          fail("has more than " + std::to_string(shape.size()) + " indices of " + name);
        ranges.push_back(range(shape[ranges.size()]));
      } while (takes(','));
      expect(']');
    }
    while (ranges.size() < shape.size()) ranges.push_back({0, shape[ranges.size()]});
    return reference(original, *hook, shape, ranges);
  }

  Sized reference(bool original, Hook hook, const std::vector<size_t>& shape, const std::vector<Visible>& ranges) {
    const size_t row = is_attention(hook.point) ? 1 : 0;  // the place of the position among the indices
    auto tensor = std::make_unique<Tensor>();
    tensor->original = original;
    tensor->hook = hook;
    tensor->first_head = row == 1 ? ranges[0].begin : 0;
    tensor->heads = row == 1 ? ranges[0].end - ranges[0].begin : 1;
    tensor->first_row = ranges[row].begin;
    tensor->rows = ranges[row].end - ranges[row].begin;
    tensor->columns = {0};
    for (size_t d = row + 1; d < shape.size(); ++d) {
      std::vector<size_t> more;
      for (const size_t column : tensor->columns)
        for (size_t i = ranges[d].begin; i < ranges[d].end; ++i) more.push_back(column * shape[d] + i);
      tensor->columns = std::move(more);
    }
    tensor->values.resize(tensor->heads * tensor->rows * tensor->columns.size());
    tensors_.push_back(std::move(tensor));
    const Tensor* kept = tensors_.back().get();
    return {[kept] { return kept->values; }, kept->values.size()};
  }

  long whole_number() {
    blanks();
    long value = 0;
    const auto [end, error] = std::from_chars(line_.data() + at_, line_.data() + line_.size(), value);
    if (error != std::errc()) fail("has " + quoted(line_.substr(at_)) + " in the place of an index");
    at_ = static_cast<size_t>(end - line_.data());
    return value;
  }
  size_t within(long value, size_t extent, bool end) const {
    const long n = static_cast<long>(extent), from_start = value < 0 ? value + n : value;
    if (from_start < 0 || from_start > n || (!end && from_start == n))
      fail("has the index " + std::to_string(value) + " where there are " + std::to_string(extent));
    return static_cast<size_t>(from_start);
  }
  size_t index(size_t extent) { return within(whole_number(), extent, false); }
  Visible range(size_t extent) {
    const bool open = takes(':');
    const size_t begin = open ? 0 : within(whole_number(), extent, true);
    if (!open && !takes(':')) return {within(static_cast<long>(begin), extent, false), begin + 1};
    blanks();
    const bool to_the_end = at_ < line_.size() && (line_[at_] == ',' || line_[at_] == ']');
    const size_t end = to_the_end ? extent : within(whole_number(), extent, true);
    if (begin >= end) fail("has an empty range");
    return {begin, end};
  }

  const std::string line_, where_;
  const ModelConfig& config_;
  const size_t positions_;
  std::vector<std::unique_ptr<Tensor>>& tensors_;
  size_t at_ = 0, depth_ = 0;
};

Claims::Claims(const std::string& text, const std::string& file, const ModelConfig& config, size_t positions) {
  std::istringstream lines(text);
  size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    line.resize(std::min(line.find('#'), line.size()));
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    line.erase(0, line.find_first_not_of(" \t"));
    if (line.empty()) continue;
    claims_.push_back(Parser(line, file + ":" + std::to_string(number), config, positions, tensors_).parse());
  }
  if (claims_.empty() && !file.empty()) refuse(file, "holds no claim, expected one a line", "sinkref certify --help shows what one looks like");
}

Claims::~Claims() = default;

std::vector<Hook> Claims::hooks(bool original) const {
  std::vector<Hook> hooks;
  for (const auto& tensor : tensors_)
    if (tensor->original == original) hooks.push_back(tensor->hook);
  return hooks;
}

void Claims::see(bool original, Hook hook, size_t head, size_t first, const Matrix<Ball>& values) {
  for (const auto& tensor : tensors_) {
    if (tensor->original != original || tensor->hook != hook) continue;
    if (head < tensor->first_head || head >= tensor->first_head + tensor->heads) continue;
    for (size_t p = 0; p < values.rows; ++p) {
      if (first + p < tensor->first_row || first + p >= tensor->first_row + tensor->rows) continue;
      const size_t row = (head - tensor->first_head) * tensor->rows + first + p - tensor->first_row;
      for (size_t c = 0; c < tensor->columns.size(); ++c)
        tensor->values[row * tensor->columns.size() + c] = values[p][tensor->columns[c]];
    }
  }
}

std::vector<ClaimResult> Claims::results() const {
  std::vector<ClaimResult> all;
  for (const Claim& claim : claims_) all.push_back(claim.result());
  return all;
}

}  // namespace sinkref
