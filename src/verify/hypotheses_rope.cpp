// The usual faults of RoPE. Frequencies that their numbers show are tried beside the usual ones.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>

#include "verify/hypotheses.h"

namespace sinkref {

namespace {

/// How queries and keys are turned: the angle of frequency i at a position, and which two values of
/// a head make pair i.
struct Turn {
  std::function<double(size_t i, size_t position)> angle;
  bool interleaved = false;
  bool queries = true, keys = true;  ///< which are turned at all
};

/// Rotation done again from the unrotated values that the run goes on with.
Hypothesis turned(const std::string& fault, const std::string& detail, size_t head_dim,
                  const Turn& turn) {
  Hypothesis h{fault, detail, HookPoint::RotQ};
  auto kept = std::make_shared<std::array<Matrix<double>, 2>>();
  h.after = [kept](Hooks<double>& hooks, const Place& place) {
    const auto keep = [kept](size_t which) {
      return [kept, which](const Activation<double>& a) {
        (*kept)[which] = Matrix<double>(a.rows.size(), a.width);
        for (size_t r = 0; r < a.rows.size(); ++r)
          std::copy_n(a.row(r), a.width, (*kept)[which].row(r));
      };
    };
    on_blocks(hooks, place, HookPoint::Q, keep(0));
    on_blocks(hooks, place, HookPoint::K, keep(1));
  };
  h.before = [kept, turn, head_dim](Hooks<double>& hooks, const Place& place) {
    const auto rotate = [kept, turn, head_dim](size_t which, bool is_turned) {
      return [=](const Activation<double>& a) {
        const size_t half = head_dim / 2;
        for (size_t r = 0; r < a.rows.size(); ++r)
          for (size_t head = 0; head < a.width; head += head_dim)
            for (size_t i = 0; i < half; ++i) {
              const size_t first = head + (turn.interleaved ? 2 * i : i);
              const size_t second = turn.interleaved ? first + 1 : first + half;
              const double x = (*kept)[which].row(r)[first], y = (*kept)[which].row(r)[second];
              const double angle = is_turned ? turn.angle(i, a.rows[r].position) : 0;
              a.row(r)[first] = x * std::cos(angle) - y * std::sin(angle);
              a.row(r)[second] = y * std::cos(angle) + x * std::sin(angle);
            }
      };
    };
    on_blocks(hooks, place, HookPoint::RotQ, rotate(0, turn.queries));
    on_blocks(hooks, place, HookPoint::RotK, rotate(1, turn.keys));
  };
  return h;
}

Hypothesis configured(const std::string& fault, const std::string& detail,
                      const std::function<void(ModelConfig&)>& config) {
  Hypothesis h{fault, detail, HookPoint::RotQ};
  h.config = config;
  return h;
}

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

/// Their frequencies from what they turned: at position 1 (or the first there is) the angle between
/// hook_q and hook_rot_q of each pair, weighted over heads. Empty if they do not show both.
std::vector<double> measured_frequencies(const ModelConfig& c, const Candidate& candidate,
                                         size_t layer) {
  const Hook q{HookPoint::Q, layer}, rotated{HookPoint::RotQ, layer};
  if (!candidate.has(q) || !candidate.has(rotated) || candidate.tokens()[0].size() < 2 || !candidate.holds(1))
    return {};
  const size_t width = c.heads * c.head_dim, half = c.head_dim / 2;
  std::vector<double> before(width), after(width), frequencies(half);
  candidate.row(q, 0, 1, before.data());
  candidate.row(rotated, 0, 1, after.data());
  for (size_t i = 0; i < half; ++i) {
    double cosine = 0, sine = 0;
    for (size_t head = 0; head < width; head += c.head_dim) {
      const double x = before[head + i], y = before[head + half + i];
      const double u = after[head + i], v = after[head + half + i];
      cosine += x * u + y * v;
      sine += x * v - y * u;
    }
    frequencies[i] = std::atan2(sine, cosine);
  }
  return frequencies;
}

/// A base that gives such a frequency: the middle of the table, where it is neither wrapped nor lost.
double base_of(const std::vector<double>& frequencies) {
  const size_t half = frequencies.size(), i = std::max<size_t>(1, half / 2);
  if (half < 2 || !(frequencies[i] > 0)) return 0;
  return std::pow(frequencies[i], -static_cast<double>(half) / static_cast<double>(i));
}

void add_bases(const ModelConfig& c, const std::vector<double>& measured, std::vector<Hypothesis>& all) {
  std::vector<double> bases = {1e4, 1e5, 5e5, 1e6, 1e7};
  if (const double base = base_of(measured); base > 1 && base < 1e9) {
    double scale = 1;  // a base has few digits: the nearest of three
    while (base / scale >= 1000) scale *= 10;
    bases.push_back(std::nearbyint(base / scale) * scale);
  }
  for (double base : bases) {
    if (std::fabs(base - c.rope.theta) < 1e-3 * c.rope.theta) continue;
    all.push_back(configured("rope_base", "the RoPE base is " + shown(base) + ", the model's is " +
                                              shown(c.rope.theta),
                             [base](ModelConfig& config) { config.rope.theta = base; }));
    if (c.rope.scaling != RopeScaling::None)
      all.push_back(configured("rope_base", "the RoPE base is " + shown(base) + " without scaling",
                               [base](ModelConfig& config) {
                                 config.rope = RopeConfig{};
                                 config.rope.theta = base;
                               }));
  }
}

void add_scalings(const ModelConfig& c, const std::vector<float>& inv_freq,
                  const std::vector<double>& measured, std::vector<Hypothesis>& all) {
  const bool scaled = c.rope.scaling != RopeScaling::None || !c.rope.freq_divisors.empty();
  if (scaled)
    all.push_back(configured("rope_scaling", "RoPE scaling is left out", [](ModelConfig& config) {
      const double theta = config.rope.theta;
      config.rope = RopeConfig{};
      config.rope.theta = theta;
    }));
  std::vector<double> factors = {2, 4, 8, 16, 32};
  if (const size_t i = measured.size() / 2; i > 0 && measured[i] > 0)
    factors.push_back(std::nearbyint(100 * static_cast<double>(inv_freq[i]) / measured[i]) / 100);
  const double own = c.rope.scaling == RopeScaling::Linear ? c.rope.factor : 1;
  for (double factor : factors) {
    if (!(factor > 1.001)) continue;
    if (factor != own)
      all.push_back(configured("rope_scaling", "linear RoPE scaling by " + shown(factor),
                               [factor](ModelConfig& config) {
                                 const double theta = config.rope.theta;
                                 config.rope = RopeConfig{};
                                 config.rope.theta = theta;
                                 config.rope.scaling = RopeScaling::Linear;
                                 config.rope.factor = factor;
                               }));
    if (scaled)
      all.push_back(configured(
          "rope_scaling", "linear RoPE scaling by " + shown(factor) + " on top of the model's own",
          [factor](ModelConfig& config) {
            std::vector<float>& divisors = config.rope.freq_divisors;
            if (divisors.empty()) divisors.assign(config.head_dim / 2, 1.0f);
            for (float& divisor : divisors) divisor *= static_cast<float>(factor);
          }));
    if (c.rope.scaling == RopeScaling::Llama3 && factor != c.rope.factor)
      all.push_back(configured("rope_scaling", "llama3 RoPE scaling by " + shown(factor),
                               [factor](ModelConfig& config) { config.rope.factor = factor; }));
  }
  if (c.rope.scaling == RopeScaling::Llama3)
    for (double original : {64.0, 128.0, 512.0, 2048.0, 4096.0, 8192.0})
      if (original != c.rope.original_max_positions)
        all.push_back(configured(
            "rope_scaling", "llama3 RoPE scaling from " + shown(original) + " original positions",
            [original](ModelConfig& config) { config.rope.original_max_positions = original; }));
}

}  // namespace

void add_rope_faults(const Model& model, const Candidate& candidate, Hook first,
                     std::vector<Hypothesis>& all) {
  const ModelConfig& c = model.config();
  const size_t layer = first.point == HookPoint::RotQ || first.point == HookPoint::RotK ? first.layer : 0;
  const std::vector<double> measured = measured_frequencies(c, candidate, layer);
  add_bases(c, measured, all);
  add_scalings(c, model.inv_freq(), measured, all);

  const std::vector<float> f = model.inv_freq();
  const auto at = [f](double shift) {
    return [f, shift](size_t i, size_t position) {
      return static_cast<double>(static_cast<float>(static_cast<double>(position) + shift) * f[i]);
    };
  };
  const size_t h = c.head_dim;
  all.push_back(turned("rope_pairing", "RoPE turns neighbours (2i, 2i+1) instead of the two halves", h,
                       {at(0), true}));
  all.push_back(turned("rope_direction", "RoPE turns the other way (sin has the wrong sign)", h,
                       {[turn = at(0)](size_t i, size_t p) { return -turn(i, p); }}));
  all.push_back(turned("rope_missing", "RoPE is not applied", h, {at(0), false, false, false}));
  all.push_back(turned("rope_missing", "RoPE is not applied to keys", h, {at(0), false, true, false}));
  all.push_back(turned("rope_missing", "RoPE is not applied to queries", h, {at(0), false, false, true}));
  all.push_back(turned("rope_twice", "RoPE is applied twice", h,
                       {[turn = at(0)](size_t i, size_t p) { return 2 * turn(i, p); }}));
  for (double shift : {1.0, -1.0, 2.0})
    all.push_back(turned("positions",
                         shift > 0 ? "positions are too large by " + shown(shift)
                                   : "positions are too small by " + shown(-shift),
                         h, {at(shift)}));
  all.push_back(turned("positions", "the first position is counted twice (0, 0, 1, 2, …)", h,
                       {[turn = at(0)](size_t i, size_t p) { return turn(i, p == 0 ? 0 : p - 1); }}));
}

}  // namespace sinkref
