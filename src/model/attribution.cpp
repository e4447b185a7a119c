// QK attribution. Everything is followed twice: what each writer adds, in double, and how far the engine's own
// number may lie from the sum of these, element by element.
//
// u is the unit roundoff of the engine's numbers, γₙ = n u / (1 - n u) (Higham 2002, lemma 3.1). x̃ is a number of
// the engine, δx a bound of |x̃ - Σ writers|:
//
//     stream     each addition rounds once: δ += u |x̃|. A head's write is a part of a chain of H·h terms, so
//                that by heads δ += γ Σ |z w|, and u |attn_out| more where a bias is added
//     norm       y = x / σ · w rounds twice: δy = δx |w| / σ + γ₂ |x̃ w / σ|
//     q and k    a chain, then a bias: δq = Σ |W| δy + γ Σ |W| |ỹ| + u |q̃|
//     RoPE       a cos - b sin rounds three times, each term twice: δ = |cos| δa + |sin| δb + γ₂ (|a cos| + |b sin|)
//     score      a chain, then a product: (Σ δq |k̃| + (|q̃| + δq) δk + γ Σ |q̃ k̃|) / √h + u |score|
//
// What double itself rounds is bounded by the number of operations behind a term times 2^-53 Σ |terms|.

#include "sinkref/attribution.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "arithmetic/chain_roundings.h"
#include "base/threads.h"
#include "sinkref/error.h"
#include "sinkref/number.h"

namespace sinkref {

namespace {

constexpr double double_roundoff = 0x1p-53;

/// γₙ
double gamma(double n, double u) { return n * u / (1 - n * u); }

/// What the engine has at one position, by hook.
using Kept = std::map<Hook, std::vector<double>>;

template <class T>
constexpr double roundoff = std::numeric_limits<T>::epsilon() / 2;

/// The sum of some vectors, with the engine's value of it.
struct Split {
  std::vector<std::string> labels;
  std::vector<std::vector<double>> parts;  ///< one a label
  std::vector<double> value;               ///< the engine's
  std::vector<double> error;               ///< of value - Σ parts, at most
  std::vector<double> terms;               ///< Σ |terms| behind the parts, for what double rounds

  void add(std::string label, std::vector<double> part) {
    for (size_t i = 0; i < part.size(); ++i) terms[i] += std::fabs(part[i]);
    labels.push_back(std::move(label));
    parts.push_back(std::move(part));
  }
  /// The stream has been added to: `sum` is the engine's.
  void added(const std::vector<double>& sum, double u) {
    for (size_t i = 0; i < sum.size(); ++i) error[i] += u * std::fabs(sum[i]);
  }
};

/// Of the run of one prompt, what one position's split needs.
template <class T>
class Splitter {
 public:
  Splitter(const Model& model, size_t layer, Writers writers) : model_(model), layer_(layer), writers_(writers) {}

  /// Keeps what side() reads.
  void observe(size_t position, Kept& rows, Hooks<T>& hooks) const {
    std::vector<Hook> wanted = {{HookPoint::Embed, 0},        {HookPoint::ResidPre, layer_}, {HookPoint::Ln1Scale, layer_},
                                {HookPoint::Q, layer_},       {HookPoint::K, layer_},        {HookPoint::RotQ, layer_},
                                {HookPoint::RotK, layer_}};
    for (size_t l = 0; l < layer_; ++l) {
      for (const HookPoint point : {HookPoint::AttnOut, HookPoint::ResidMid, HookPoint::MlpOut, HookPoint::ResidPost})
        wanted.push_back({point, l});
      if (writers_ == Writers::heads) wanted.push_back({HookPoint::Z, l});
    }
    for (const Hook hook : wanted)
      hooks.add(hook, [&rows, hook, position](const Activation<T>& a) {
        for (size_t r = 0; r < a.rows.size(); ++r)
          if (a.rows[r].position == position) rows[hook].assign(a.row(r), a.row(r) + a.width);
      });
  }

  /// The query's or the key's vector of one head after RoPE.
  Split side(const Kept& rows, size_t position, size_t head, bool query) const {
    const LayerWeights& w = model_.layer(layer_);
    const HookPoint plain = query ? HookPoint::Q : HookPoint::K, rotated = query ? HookPoint::RotQ : HookPoint::RotK;
    const Split stream = this->stream(rows);
    const Split normed = this->normed(stream, rows.at({HookPoint::Ln1Scale, layer_})[0]);
    Split projected = this->projected(normed, query ? w.wq : w.wk, query ? w.bq : w.bk, head, rows.at({plain, layer_}));
    return turned(std::move(projected), position, head, rows.at({rotated, layer_}));
  }

 private:
  const std::vector<double>& at(const Kept& rows, HookPoint point, size_t l) const { return rows.at({point, l}); }

  /// The residual stream before the layer.
  Split stream(const Kept& rows) const {
    const size_t d = model_.config().hidden_size;
    Split s{{}, {}, at(rows, HookPoint::ResidPre, layer_), std::vector<double>(d), std::vector<double>(d)};
    s.add("embed", at(rows, HookPoint::Embed, 0));
    for (size_t l = 0; l < layer_; ++l) {
      const std::string name = std::to_string(l);
      if (writers_ == Writers::layers) s.add(name + ".attn", at(rows, HookPoint::AttnOut, l));
      else add_heads(l, rows, s);
      s.added(at(rows, HookPoint::ResidMid, l), u);
      s.add(name + ".mlp", at(rows, HookPoint::MlpOut, l));
      s.added(at(rows, HookPoint::ResidPost, l), u);
    }
    return s;
  }

  /// What each head writes: its columns of W_O times its z.
  void add_heads(size_t l, const Kept& rows, Split& s) const {
    const ModelConfig& c = model_.config();
    const LayerWeights& w = model_.layer(l);
    const std::vector<double>&z = at(rows, HookPoint::Z, l), &out = at(rows, HookPoint::AttnOut, l);
    std::vector<std::vector<double>> heads(c.heads, std::vector<double>(c.hidden_size));
    const double chain_error = gamma(double(chain_roundings(z.size())), u);
    parallel_for(c.hidden_size, [&](size_t n) {
      const std::vector<float> row = widen_row(w.wo, n);
      double terms = 0;
      for (size_t i = 0; i < z.size(); ++i) {
        const double term = z[i] * double(row[i]);
        heads[i / c.head_dim][n] += term;
        terms += std::fabs(term);
      }
      s.error[n] += chain_error * terms;
      if (!w.bo.empty()) s.error[n] += u * std::fabs(out[n]);
      s.terms[n] += terms;
    });
    for (size_t head = 0; head < c.heads; ++head)
      s.add(std::to_string(l) + ".head." + std::to_string(head), std::move(heads[head]));
    if (!w.bo.empty()) s.add(std::to_string(l) + ".attn.bias", {w.bo.begin(), w.bo.end()});
  }

  /// RMSNorm with its scale held as it is.
  Split normed(Split s, double scale) const {
    const std::vector<float>& weight = model_.layer(layer_).ln1;
    for (size_t i = 0; i < s.value.size(); ++i) {
      const double factor = double(weight[i]) / scale, size = std::fabs(factor);
      for (std::vector<double>& part : s.parts) part[i] *= factor;
      s.value[i] *= factor;
      s.error[i] = s.error[i] * size + gamma(2, u) * std::fabs(s.value[i]);
      s.terms[i] *= size;
    }
    return s;
  }

  /// The head's rows of W_Q or W_K, and the bias as a writer of its own. `engine` holds all heads.
  Split projected(const Split& x, const StoredMatrix& w, const std::vector<float>& bias, size_t head,
                  const std::vector<double>& engine) const {
    const size_t h = model_.config().head_dim, first = head * h;
    Split y{x.labels, std::vector<std::vector<double>>(x.parts.size(), std::vector<double>(h)),
            {engine.begin() + long(first), engine.begin() + long(first + h)}, std::vector<double>(h),
            std::vector<double>(h)};
    const double chain_error = gamma(double(chain_roundings(w.cols)), u), norm_error = 1 + gamma(2, u);
    parallel_for(h, [&](size_t r) {
      const std::vector<float> row = widen_row(w, first + r);
      for (size_t part = 0; part < x.parts.size(); ++part) {
        double sum = 0;
        for (size_t i = 0; i < row.size(); ++i) sum += double(row[i]) * x.parts[part][i];
        y.parts[part][r] = sum;
      }
      for (size_t i = 0; i < row.size(); ++i) {
        const double size = std::fabs(double(row[i]));
        y.error[r] += size * (x.error[i] + chain_error * norm_error * std::fabs(x.value[i]));
        y.terms[r] += size * x.terms[i];
      }
      if (!bias.empty()) y.error[r] += u * std::fabs(y.value[r]);
    });
    if (!bias.empty()) y.add("bias", {bias.begin() + long(first), bias.begin() + long(first + h)});
    return y;
  }

  /// RoPE. `engine` holds all heads.
  Split turned(Split x, size_t position, size_t head, const std::vector<double>& engine) const {
    const std::vector<float>& inv_freq = model_.inv_freq();
    const size_t half = inv_freq.size(), first = head * 2 * half;
    for (size_t i = 0; i < half; ++i) {
      const CosSin turn = cos_sin_spec(static_cast<float>(position) * inv_freq[i]);
      const double cos = turn.cos, sin = turn.sin;
      const auto turn_pair = [&](std::vector<double>& v) {
        const double a = v[i], b = v[half + i];
        v[i] = a * cos - b * sin;
        v[half + i] = b * cos + a * sin;
      };
      const auto turn_sizes = [&](std::vector<double>& v, double a, double b) {
        v[i] = a * std::fabs(cos) + b * std::fabs(sin);
        v[half + i] = b * std::fabs(cos) + a * std::fabs(sin);
      };
      for (std::vector<double>& part : x.parts) turn_pair(part);
      const double rounded = gamma(2, u);
      turn_sizes(x.error, x.error[i] + rounded * std::fabs(x.value[i]),
                 x.error[half + i] + rounded * std::fabs(x.value[half + i]));
      turn_sizes(x.terms, x.terms[i], x.terms[half + i]);
    }
    x.value.assign(engine.begin() + long(first), engine.begin() + long(first + 2 * half));
    return x;
  }

  static constexpr double u = roundoff<T>;
  const Model& model_;
  const size_t layer_;
  const Writers writers_;
};

void require(size_t number, size_t limit, const std::string& what) {
  if (number >= limit)
    refuse("attribute_score", "there is no " + what + " " + std::to_string(number) + ", expected 0 to " +
           std::to_string(limit - 1), "choose another");
}

}  // namespace

template <class T>
ScoreAttribution attribute_score(const Model& model, const RunOptions& options, const std::vector<int>& tokens,
                                 size_t layer, size_t head, size_t query, size_t key, Writers writers) {
  constexpr double u = roundoff<T>;
  const ModelConfig& c = model.config();
  check_tokens(model, tokens);
  require(layer, c.layers, "layer");
  require(head, c.heads, "head");
  require(query, tokens.size(), "query position");
  require(key, tokens.size(), "key position");
  const Visible seen = visible_to(query, c.sliding_window);
  if (!seen.holds(key))
    refuse("attribute_score", "the query at " + std::to_string(query) + " does not see the key at " +
           std::to_string(key) + ", expected " + std::to_string(seen.begin) + " to " + std::to_string(query),
           "choose another key");

  const Splitter<T> splitter(model, layer, writers);
  Kept of_query, of_key;
  double score = 0;
  Hooks<T> hooks;
  splitter.observe(query, of_query, hooks);
  splitter.observe(key, of_key, hooks);
  hooks.add({HookPoint::AttnScores, layer}, [&](const Activation<T>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      if (a.head == head && a.rows[r].position == query) score = double(a.row(r)[key]);
  });
  run(model, options, {{tokens.begin(), tokens.begin() + long(query) + 1}}, hooks);

  const Split q = splitter.side(of_query, query, head, true);
  const Split k = splitter.side(of_key, key, head / (c.heads / c.kv_heads), false);
  const double scale = double(static_cast<T>(1.0 / std::sqrt(double(c.head_dim))));
  ScoreAttribution result{q.labels, k.labels, Matrix<double>(q.parts.size(), k.parts.size()), score, 0};
  parallel_for(q.parts.size(), [&](size_t i) {
    for (size_t j = 0; j < k.parts.size(); ++j) {
      double sum = 0;
      for (size_t r = 0; r < c.head_dim; ++r) sum += q.parts[i][r] * k.parts[j][r];
      result.values[i][j] = scale * sum;
    }
  });
  double error = 0, terms = 0;
  for (size_t r = 0; r < c.head_dim; ++r) {
    const double a = std::fabs(q.value[r]), b = std::fabs(k.value[r]);
    error += q.error[r] * b + (a + q.error[r]) * k.error[r] + gamma(double(chain_roundings(c.head_dim)), u) * a * b;
    terms += q.terms[r] * k.terms[r];
  }
  const size_t operations = 2 * (c.hidden_size + c.heads * c.head_dim) + c.head_dim + q.parts.size() + k.parts.size() + 32;
  result.bound = scale * error + u * std::fabs(score) + gamma(double(operations), double_roundoff) * scale * terms;
  return result;
}

template ScoreAttribution attribute_score<float>(const Model&, const RunOptions&, const std::vector<int>&, size_t, size_t,
                                                 size_t, size_t, Writers);
template ScoreAttribution attribute_score<double>(const Model&, const RunOptions&, const std::vector<int>&, size_t, size_t,
                                                  size_t, size_t, Writers);

}  // namespace sinkref
