// --intervene: the grammar of interventions.h, and what each action does to the rows of an activation.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>

#include "base/json_file.h"
#include "base/sha256.h"
#include "base/split.h"
#include "model/pin.h"
#include "sinkref/error.h"
#include "sinkref/interventions.h"
#include "sinkref/trace.h"

namespace sinkref {

namespace {

using Action = HookIntervention::Action;

size_t product_of(const std::vector<size_t>& shape, size_t from = 0) {
  size_t n = 1;
  for (size_t i = from; i < shape.size(); ++i) n *= shape[i];
  return n;
}

/// Reads one intervention of the text.
class Parser {
 public:
  Parser(std::string text, const std::string& option, const ModelConfig& config, const GivenReader& read)
      : text_(std::move(text)), option_(option), config_(config), read_(read) {}

  std::vector<HookIntervention> parse() {
    const size_t equals = text_.find('=');
    if (equals == std::string::npos) fail("has no action", "HOOK[@POSITIONS][#PARTS]=zero, mean:FILE, from:FILE, …");
    std::string left = text_.substr(0, equals), parts, positions;
    const auto cut = [&](char mark, std::string& into) {
      const size_t at = left.find(mark);
      if (at == std::string::npos) return false;
      into = left.substr(at + 1);
      left.erase(at);
      return true;
    };
    const bool has_parts = cut('#', parts), has_positions = cut('@', positions);
    std::vector<HookIntervention> all;
    for (const Hook hook : select_hooks(left, config_.layers, option_ + " " + quoted(text_))) {
      HookIntervention one;
      one.hook = hook;
      one.part_width = product_of(shape(one), 1);
      one.text = hook_name(hook);
      if (has_positions) read_positions(positions, one);
      if (has_parts) read_parts(parts, one);
      read_action(text_.substr(equals + 1), one);
      all.push_back(std::move(one));
    }
    return all;
  }

 private:
  [[noreturn]] void fail(const std::string& problem, const std::string& expected) const {
    throw InputError(option_ + " " + quoted(text_) + ": " + problem + ", expected " + expected);
  }

  template <class N>
  N number(std::string_view text, const char* expected) const {
    N value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || text.empty())
      fail(quoted(std::string(text)) + " stands there", expected);
    return value;
  }

  void read_positions(const std::string& text, HookIntervention& one) const {
    constexpr const char* expected = "positions as 0,5,-1 or 1: or -3:";
    for (const std::string_view part : split(text, ',')) {
      PositionSlice slice;
      const size_t colon = part.find(':');
      slice.one = colon == std::string_view::npos;
      if (slice.one || colon > 0) slice.begin = number<long>(part.substr(0, colon), expected);
      if (!slice.one && colon + 1 < part.size()) slice.end = number<long>(part.substr(colon + 1), expected);
      one.positions.push_back(slice);
    }
    one.text += "@" + text;
  }

  std::vector<size_t> shape(const HookIntervention& one) const { return hook_shape(one.hook.point, config_); }
  bool has_heads(const HookIntervention& one) const {
    return is_attention(one.hook.point) || shape(one).size() > 1;
  }

  void read_parts(const std::string& text, HookIntervention& one) const {
    if (text.starts_with("along:")) {
      if (is_attention(one.hook.point)) fail("scores and pattern have no direction", "heads, as #0,3");
      one.direction = vector(text.substr(6), one);
      if (std::all_of(one.direction.begin(), one.direction.end(), [](double x) { return x == 0; }))
        fail("the direction is zero", "a vector that is not");
      one.text += "#along:" + name_of(one.direction);
      return;
    }
    const size_t limit = shape(one)[0];
    const std::string what = has_heads(one) ? "head" : "element";
    for (const std::string_view part : split(text, ',')) {
      one.parts.push_back(number<size_t>(part, "numbers as 3,77, or along:FILE"));
      if (one.parts.back() >= limit)
        fail("there is no " + what + " " + std::string(part), "0 to " + std::to_string(limit - 1));
    }
    one.text += "#" + text;
  }

  void read_action(const std::string& text, HookIntervention& one) const {
    const size_t colon = text.find(':');
    const std::string action = text.substr(0, colon), given = colon == std::string::npos ? "" : text.substr(colon + 1);
    const std::pair<const char*, Action> actions[] = {{"zero", Action::zero}, {"mean", Action::mean},
                                                      {"from", Action::from}, {"resample", Action::resample},
                                                      {"add", Action::add},   {"pin", Action::pin}};
    const auto found = std::find_if(std::begin(actions), std::end(actions),
                                    [&](const auto& a) { return a.first == action; });
    if (found == std::end(actions) || (found->second == Action::zero) != (colon == std::string::npos))
      fail(quoted(text) + " is no action", "zero, mean:FILE, from:FILE, resample:FILE, add:[NUMBER*]FILE or pin:POSITION");
    one.action = found->second;
    one.text += "=" + text.substr(0, colon);
    const bool attention = is_attention(one.hook.point);
    if (attention && one.action != Action::zero && one.action != Action::from)
      fail(action + " is not for scores and pattern, whose rows have their own lengths", "zero or from:FILE");
    switch (one.action) {
      case Action::zero: return;
      case Action::pin:
        one.pinned = number<size_t>(given, "a position from 0 on");
        one.text += ":" + std::to_string(one.pinned);
        return;
      case Action::add: {
        if (!one.direction.empty()) fail("add has no use for a direction", "the vector alone");
        const size_t star = given.find('*');
        if (star != std::string::npos) one.factor = number<double>(given.substr(0, star), "NUMBER*FILE");
        if (!std::isfinite(one.factor)) fail("the factor is not finite", "NUMBER*FILE");
        one.given.values = vector(given.substr(star == std::string::npos ? 0 : star + 1), one);
        one.text += ":" + (star == std::string::npos ? "" : given.substr(0, star + 1)) + name_of(one.given.values);
        return;
      }
      case Action::mean:
        one.given.values = mean_of(values(given, one));
        break;
      case Action::from:
      case Action::resample:
        one.given = values(given, one);
        if (one.given.shape.size() < 2) fail("a vector has no positions", "a trace, or mean:FILE");
        break;
    }
    one.text += ":" + name_of(one.given.values);
  }

  /// Numbers for the rows of a hook; their shape fits.
  GivenValues values(const std::string& file, const HookIntervention& one) const {
    GivenValues given = read_(file, hook_name(one.hook));
    std::vector<size_t> own = shape(one);
    const std::vector<size_t>& s = given.shape;
    const bool attention = is_attention(one.hook.point), vector = s.size() == 1;
    bool fits = vector ? !attention && s[0] == product_of(own) : s.size() >= 2;
    if (!vector && attention) fits = s.size() == 4 && s[1] == own[0] && s[2] == s[3];
    if (!vector && !attention) fits = s.size() >= 2 && std::vector<size_t>(s.begin() + 2, s.end()) == own;
    if (!fits || given.values.size() != product_of(s) || given.values.empty()) {
      std::string has, expected = attention ? "[b," + std::to_string(own[0]) + ",p,p" : "[b,p";
      for (const size_t extent : s) has += (has.empty() ? "" : ",") + std::to_string(extent);
      for (const size_t extent : own)
        if (!attention) expected += "," + std::to_string(extent);
      fail(quoted(file) + " has shape [" + has + "]", expected + "]");
    }
    const bool masked = one.hook.point == HookPoint::AttnScores;
    for (const double x : given.values)
      if (!std::isfinite(x) && !(masked && x == -std::numeric_limits<double>::infinity()))
        fail(quoted(file) + " holds a number that is not finite", "finite numbers");
    return given;
  }

  std::vector<double> vector(const std::string& file, const HookIntervention& one) const {
    const GivenValues given = values(file, one);
    if (given.shape.size() != 1) fail(quoted(file) + " is no vector", "a list of " +
                                      std::to_string(product_of(shape(one))) + " numbers");
    return given.values;
  }

  /// Over all rows that are no padding, in their order.
  static std::vector<double> mean_of(const GivenValues& given) {
    if (given.shape.size() == 1) return given.values;
    const size_t width = product_of(given.shape, 2);
    std::vector<double> sum(width);
    size_t rows = 0;
    for (size_t b = 0; b < given.shape[0]; ++b)
      for (size_t p = 0; p < length_of(given, b); ++p, ++rows)
        for (size_t i = 0; i < width; ++i) sum[i] += given.values[(b * given.shape[1] + p) * width + i];
    for (double& x : sum) x /= static_cast<double>(rows);
    return sum;
  }

  static size_t length_of(const GivenValues& given, size_t b) {
    return given.lengths.empty() ? given.shape[1] : given.lengths[b];
  }

  static std::string name_of(const std::vector<double>& values) {
    Sha256 hash;
    hash.update(values.data(), values.size() * sizeof(double));
    return "sha256-" + hash.finish().substr(0, 16);
  }

  const std::string text_;
  const std::string& option_;
  const ModelConfig& config_;
  const GivenReader& read_;
};

bool selected(const std::vector<PositionSlice>& slices, size_t position, size_t length) {
  const auto from_start = [&](long p) { return p < 0 ? std::max(0L, p + static_cast<long>(length)) : p; };
  const long p = static_cast<long>(position);
  return slices.empty() || std::any_of(slices.begin(), slices.end(), [&](const PositionSlice& s) {
           if (s.one) return p == (s.begin < 0 ? s.begin + static_cast<long>(length) : s.begin);
           return p >= from_start(s.begin) && (!s.end || p < from_start(*s.end));
         });
}

/// Positions of sequence b that are no padding.
size_t positions_of(const HookIntervention& one, size_t b) {
  const bool attention = is_attention(one.hook.point);
  return one.given.lengths.empty() ? one.given.shape[attention ? 2 : 1] : one.given.lengths[b];
}

/// A well-mixed number from a position (splitmix64, Steele et al. 2014).
uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// The given numbers for a row, or none for what is generated beyond them.
const double* given_row(const HookIntervention& one, const Row& row, size_t head, size_t width) {
  const GivenValues& g = one.given;
  switch (one.action) {
    case Action::mean: return g.values.data();
    case Action::from: {
      const size_t b = g.shape[0] == 1 ? 0 : row.sequence;
      if (row.position >= positions_of(one, b)) return nullptr;
      if (is_attention(one.hook.point))
        return &g.values[((b * g.shape[1] + head) * g.shape[2] + row.position) * g.shape[3]];
      return &g.values[(b * g.shape[1] + row.position) * width];
    }
    case Action::resample: {
      size_t all = 0;
      for (size_t b = 0; b < g.shape[0]; ++b) all += positions_of(one, b);
      size_t drawn = mixed(row.position) % all, b = 0;
      for (; drawn >= positions_of(one, b); ++b) drawn -= positions_of(one, b);
      return &g.values[(b * g.shape[1] + drawn) * width];
    }
    default: return nullptr;
  }
}

double dot(const auto* a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < b.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

/// The component along the direction becomes another: 0, that of the given row, or the pinned one.
template <class T>
void set_component(const HookIntervention& one, const Row& row, const double* given, T* x) {
  const std::vector<double>& d = one.direction;
  const double square = dot(d.data(), d), has = dot(x, d) / square;
  double wanted = given == nullptr ? 0 : dot(given, d) / square;
  if (one.action == Action::pin) {
    wanted = has;
    pin_element(one.hook, row, SIZE_MAX, one.pinned, wanted);
  }
  if (wanted == has) return;
  for (size_t i = 0; i < d.size(); ++i) x[i] = static_cast<T>(static_cast<double>(x[i]) + (wanted - has) * d[i]);
}

template <class T>
void change(const HookIntervention& one, const Row& row, size_t i, const double* given, T& x) {
  switch (one.action) {
    case Action::zero:
      if (x != -std::numeric_limits<T>::infinity()) x = T(0);  // a masked score stays so
      return;
    case Action::mean:
    case Action::from:
    case Action::resample: x = static_cast<T>(given[i]); return;
    case Action::add: x += static_cast<T>(one.factor * one.given.values[i]); return;
    case Action::pin: pin_element(one.hook, row, i, one.pinned, x); return;
  }
}

template <class T>
void intervene(const HookIntervention& one, const std::vector<size_t>& lengths, const Activation<T>& a) {
  const bool attention = is_attention(one.hook.point);
  if (attention && !one.parts.empty() && std::find(one.parts.begin(), one.parts.end(), a.head) == one.parts.end())
    return;
  for (size_t r = 0; r < a.rows.size(); ++r) {
    const Row& row = a.rows[r];
    if (!selected(one.positions, row.position, lengths.at(row.sequence))) continue;
    const double* given = given_row(one, row, a.head, a.width);
    const bool takes = one.action == Action::from;
    if (takes && given == nullptr) continue;
    if (!one.direction.empty()) {
      set_component(one, row, given, a.row(r));
      continue;
    }
    const auto change_range = [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) change(one, row, i, given, a.row(r)[i]);
    };
    if (attention) change_range(0, std::min(a.width, row.position + 1));  // the keys that it can see
    else if (one.parts.empty()) change_range(0, a.width);
    else
      for (const size_t part : one.parts) change_range(part * one.part_width, (part + 1) * one.part_width);
  }
}

void require_positions(const HookIntervention& one, const std::vector<size_t>& lengths) {
  if (one.given.shape[0] != 1 && one.given.shape[0] != lengths.size())
    refuse(one.text, "has " + std::to_string(one.given.shape[0]) + " sequences, expected 1 or " +
           std::to_string(lengths.size()), "trace the other run with as many");
  for (size_t s = 0; s < lengths.size(); ++s) {
    const size_t has = positions_of(one, one.given.shape[0] == 1 ? 0 : s);
    for (size_t p = has; p < lengths[s]; ++p)
      if (selected(one.positions, p, lengths[s]))
        refuse(one.text, "has " + std::to_string(has) + " positions, expected position " + std::to_string(p),
               "choose positions that both runs have, as @0:" + std::to_string(has));
  }
}

/// A place that no row of the run has would leave it as it is, without a word.
void require_reached(const HookIntervention& one, const std::vector<size_t>& lengths, size_t generated) {
  const size_t longest = *std::max_element(lengths.begin(), lengths.end()) + generated;
  const auto refused = [&](const std::string& problem) {
    refuse(one.text, problem + ", expected positions below " + std::to_string(longest), "choose among those of the run");
  };
  if (one.action == Action::pin && one.pinned >= longest) refused("pins to position " + std::to_string(one.pinned));
  for (const PositionSlice& slice : one.positions) {
    const bool reached = std::any_of(lengths.begin(), lengths.end(), [&](size_t length) {
      for (size_t p = 0; p < length + generated; ++p)
        if (selected({slice}, p, length)) return true;
      return false;
    });
    if (!reached) refused("names positions that no prompt has");
  }
}

}  // namespace

GivenValues read_given(const std::string& file, const std::string& hook) {
  if (file.ends_with(".json")) {
    const nlohmann::json list = read_json_file(file);
    if (!list.is_array() || list.empty() ||
        !std::all_of(list.begin(), list.end(), [](const auto& x) { return x.is_number(); }))
      refuse(file, "is no list of numbers, expected a vector", "write it as [0.5, -1]");
    return {{list.size()}, list.get<std::vector<double>>(), {}};
  }
  const TraceFile trace = TraceFile::open(file);
  GivenValues given;
  for (const uint64_t extent : trace.shape(hook)) given.shape.push_back(extent);
  given.values = trace.values(hook);
  if (trace.has("lengths"))
    for (const double length : trace.values("lengths")) {
      if (!(length >= 1) || given.shape.size() < 2 || length > static_cast<double>(given.shape[1]))
        refuse(file, "has lengths that do not fit, expected 1 to the number of positions", "trace it again");
      given.lengths.push_back(static_cast<size_t>(length));
    }
  if (!given.lengths.empty() && given.lengths.size() != given.shape.at(0))
    refuse(file, "has " + std::to_string(given.lengths.size()) + " lengths, expected one a sequence", "trace it again");
  return given;
}

std::vector<HookIntervention> parse_interventions(const std::string& text, const std::string& option,
                                              const ModelConfig& config, const GivenReader& read) {
  std::vector<HookIntervention> all;
  for (const std::string_view part : split(text, ';'))
    for (HookIntervention& one : Parser(std::string(part), option, config, read).parse()) all.push_back(std::move(one));
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (all[i].hook == all[j].hook && all[i].action == Action::pin && all[j].action == Action::pin &&
          all[i].pinned != all[j].pinned)
        refuse(option + " " + quoted(text), "pins " + hook_name(all[i].hook) + " to two positions, expected one",
               "choose one of them");
  return all;
}

std::string interventions_text(const std::vector<HookIntervention>& interventions) {
  std::string text;
  for (const HookIntervention& one : interventions) text += (text.empty() ? "" : ";") + one.text;
  return text.empty() ? "none" : text;
}

bool may_change(const HookIntervention& one, size_t position, size_t length) {
  return selected(one.positions, position, length);
}

template <class T>
void add_interventions(const std::vector<HookIntervention>& interventions, const std::vector<size_t>& lengths,
                       Hooks<T>& hooks, size_t generated) {
  for (const HookIntervention& one : interventions) {
    require_reached(one, lengths, generated);
    if (one.action == Action::from) require_positions(one, lengths);
    // A copy that the hooks own.
    const auto own = std::make_shared<const HookIntervention>(one);
    hooks.add(one.hook, [own, lengths](const Activation<T>& a) { intervene(*own, lengths, a); });
  }
}

template void add_interventions<float>(const std::vector<HookIntervention>&, const std::vector<size_t>&, Hooks<float>&, size_t);
template void add_interventions<double>(const std::vector<HookIntervention>&, const std::vector<size_t>&, Hooks<double>&, size_t);

}  // namespace sinkref
