#include "certify/certify.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/threads.h"
#include "certify/ball_forward.h"
#include "certify/claims.h"
#include "certify/cost.h"
#include "certify/exact_product.h"
#include "certify/rounding.h"
#include "sinkref/error.h"
#include "sinkref/forward.h"

namespace sinkref {

namespace {

constexpr size_t most_attempts = 6;
constexpr double head_share = 0.15;  // of a run's time, about, that the logits take

/// Of the balls that it is shown the one with the largest radius; the first of equals.
struct Widest {
  Ball ball;
  size_t at = 0;

  void take(const Ball& other, size_t place) {
    if (mag_cmp(other.radius(), ball.radius()) <= 0) return;
    ball = other;
    at = place;
  }
};

/// Collects one run's tensors.
class Collector {
 public:
  Collector(const ModelConfig& config, const CertifyRequest& request, Certificate& into)
      : config_(config), request_(request), into_(into) {
    for (const Hook hook : request.hooks) into_.tensors.push_back({hook, {}, "0", {}, 0, {}, {}, {}, {}});
    widest_.resize(request.hooks.size());
    into_.rows.resize(request.rows.size());
  }

  void see(Hook hook, size_t head, size_t first, const Matrix<Ball>& values) {
    see_rows(hook, head, first, values);
    const auto found = std::find(request_.hooks.begin(), request_.hooks.end(), hook);
    if (found == request_.hooks.end()) return;
    const auto index = static_cast<size_t>(found - request_.hooks.begin());
    CertifiedTensor& tensor = into_.tensors[index];
    const size_t positions = request_.tokens.size();
    const bool attention = is_attention(hook.point);
    while (tensor.values.size() <= head) tensor.values.emplace_back(positions, values.cols);
    struct Row {
      Widest widest;
      size_t decided = 0;
      std::vector<size_t> undecided, ties, infinite;
    };
    std::vector<Row> rows(values.rows);
    if (request_.digits > 0) tensor.enclosures.resize(tensor.enclosures.size() + values.rows * values.cols);
    const size_t begin = (head * positions + first) * values.cols;
    parallel_for(values.rows, [&](size_t p) {
      Row& row = rows[p];
      const Visible seen = attention ? visible_to(first + p, config_.sliding_window) : Visible{0, values.cols};
      for (size_t i = 0; i < values.cols; ++i) {
        const Ball& value = values[p][i];
        const size_t at = begin + p * values.cols + i;
        const Rounded rounded = round_to_fp32(value);
        tensor.values[head][first + p][i] = rounded.value;
        if (request_.digits > 0) tensor.enclosures[at] = enclosure(value);
        if (!seen.holds(i)) continue;
        row.widest.take(value, at);
        if (rounded.decided) ++row.decided;
        else row.undecided.push_back(at);
        if (rounded.tie) row.ties.push_back(at);
        if (std::isinf(rounded.value)) row.infinite.push_back(at);
      }
    });
    const auto append = [](std::vector<size_t>& to, const std::vector<size_t>& more) {
      to.insert(to.end(), more.begin(), more.end());
    };
    for (const Row& row : rows) {
      widest_[index].take(row.widest.ball, row.widest.at);
      tensor.decided += row.decided;
      append(tensor.undecided, row.undecided);
      append(tensor.ties, row.ties);
      append(tensor.infinite, row.infinite);
    }
    if (hook.point == HookPoint::Logits && first + values.rows == positions) into_.argmax = largest(values);
  }

  void finish() {
    for (size_t i = 0; i < into_.tensors.size(); ++i) {
      CertifiedTensor& tensor = into_.tensors[i];
      const Ball& widest = widest_[i].ball;
      tensor.radius = magnitude_text(widest.radius());
      if (!widest.exact()) tensor.widest = {widest_[i].at, exact_text(widest.middle())};
      into_.decided += tensor.decided;
      into_.undecided += tensor.undecided.size();
      into_.ties += tensor.ties.size();
      into_.infinite += tensor.infinite.size();
    }
  }

 private:
  void see_rows(Hook hook, size_t head, size_t first, const Matrix<Ball>& values) {
    for (size_t i = 0; i < request_.rows.size(); ++i) {
      const RowPlace& place = request_.rows[i];
      if (place.hook != hook || place.head != head || place.position < first || place.position >= first + values.rows)
        continue;
      const Ball* balls = values[place.position - first];
      const Visible seen = is_attention(hook.point) ? visible_to(place.position, config_.sliding_window)
                                                    : Visible{0, values.cols};
      CertifiedRow row;
      for (size_t c = 0; c < values.cols; ++c) {
        const Rounded rounded = round_to_fp32(balls[c]);
        row.nearest.push_back(arf_get_d(balls[c].middle(), ARF_RND_NEAR));
        row.rounded.push_back(rounded.value);
        row.undecided += seen.holds(c) && !rounded.decided;
        if (request_.digits > 0) row.enclosures.push_back(enclosure(balls[c]));
      }
      into_.rows[i] = std::move(row);
      into_.undecided += into_.rows[i].undecided;
    }
  }

  std::string enclosure(const Ball& value) const {
    char* text = arb_get_str(value.get(), static_cast<slong>(request_.digits), 0);
    std::string copy = text;
    flint_free(text);
    return copy;
  }

  static Certificate::Argmax largest(const Matrix<Ball>& logits) {
    const Ball* row = logits[logits.rows - 1];
    size_t best = 0;
    for (size_t i = 1; i < logits.cols; ++i)
      if (row[best] < row[i]) best = i;
    bool proved = true;
    for (size_t i = 0; i < logits.cols; ++i) proved = proved && (i == best || arb_gt(row[best].get(), row[i].get()));
    return {best, proved};
  }

  const ModelConfig& config_;
  const CertifyRequest& request_;
  Certificate& into_;
  std::vector<Widest> widest_;
};

/// The blocks that have to be run for the tensors and the claims.
size_t depth_of(const CertifyRequest& request, const ModelConfig& config) {
  const Claims claims(request.claims, request.claims_file, config, request.tokens.size());
  return std::max(blocks_needed(hooks_needed(request, claims), config.layers),
                  blocks_needed(claims.hooks(true), config.layers));
}

/// Judges from the blocks that are done whether the bits will last.
class Growth {
 public:
  Growth(long bits, size_t depth, bool fixed) : bits_(bits), depth_(depth), fixed_(fixed) {}

  void block(size_t layer, long left) {
    const double used = static_cast<double>(bits_ - left), done = static_cast<double>(layer + 1);
    const double more = used / done * (static_cast<double>(depth_) - done);
    needed_ = static_cast<long>(used + more) + bits_at_the_end;
    // After a few blocks the rate is known (it falls a little): what is far too little is not carried to the end.
    if (!fixed_ && layer >= 3 && 0.85 * more > static_cast<double>(left)) throw TooFewBits();
  }
  /// The precision to begin again with.
  long next() const { return std::max(needed_, bits_ + bits_ / 4); }

 private:
  long bits_, needed_ = 0;
  size_t depth_;
  bool fixed_;
};

/// One attempt with so many bits: the run as asked for, and the original one if a claim speaks of it.
Certificate attempt(const Model& model, const CertifyRequest& request, long bits, Growth& growth) {
  const ModelConfig& config = model.config();
  Certificate certificate;
  certificate.bits = static_cast<size_t>(bits);
  Collector collector(config, request, certificate);
  Claims claims(request.claims, request.claims_file, config, request.tokens.size());
  const auto one_run = [&](const BallRun& run, bool original, const std::vector<Hook>& hooks, double from, double to) {
    const size_t depth = blocks_needed(hooks, config.layers);
    const bool logits = std::find(hooks.begin(), hooks.end(), Hook{HookPoint::Logits, 0}) != hooks.end();
    const double head = logits ? head_share : 0;
    const auto report = [&](double share) {
      if (request.progress) request.progress(from + (to - from) * share, std::to_string(bits) + " bits");
    };
    const BallProgress progress{
        [&](size_t layer, long left) {
          report((1 - head) * static_cast<double>(layer + 1) / static_cast<double>(depth));
          growth.block(layer, left);
        },
        [&](size_t rows, size_t all) {
          report(1 - head + head * static_cast<double>(rows) / static_cast<double>(all));
        }};
    run_balls(model, run, bits, depth, logits,
              [&](Hook hook, size_t h, size_t first, const Matrix<Ball>& values) {
                if (!original) collector.see(hook, h, first, values);
                claims.see(original, hook, h, first, values);
              },
              progress);
  };
  const std::vector<Hook> of_original = claims.hooks(true);
  const double half = of_original.empty() ? 1 : 0.5;
  const std::vector<Hook> hooks = hooks_needed(request, claims);
  if (!hooks.empty()) one_run(request, false, hooks, 0, half);
  if (!of_original.empty()) {
    BallRun original = request;
    original.patch.clear();
    original.ablation.clear();
    one_run(original, true, of_original, half, 1);
  }
  collector.finish();
  Ball::precision = bits;
  certificate.claims = claims.results();
  return certificate;
}

size_t open_questions(const Certificate& certificate) {
  const auto is_open = [](const ClaimResult& claim) { return claim.proof == Proof::undecided; };
  return certificate.undecided +
         static_cast<size_t>(std::count_if(certificate.claims.begin(), certificate.claims.end(), is_open));
}

}  // namespace

void require_certify() {}

Certificate certify(const Model& model, const CertifyRequest& request) {
  const ModelConfig& config = model.config();
  check_tokens(model, request.tokens);
  set_product_kernel(request.kernel);
  const size_t depth = depth_of(request, config);
  model.weights_sha256(depth);  // reads them all, and refuses what is no number
  long bits = request.bits ? static_cast<long>(*request.bits) : bits_needed(depth);
  std::optional<Certificate> best;
  for (size_t count = 1;; ++count) {
    Growth growth(bits, depth, request.bits.has_value());
    try {
      Certificate certificate = attempt(model, request, bits, growth);
      // More bits do not decide what lies halfway between two numbers of fp32: one more attempt shows that.
      const bool last = open_questions(certificate) == 0 || request.bits || count >= most_attempts ||
                        (best && open_questions(certificate) == open_questions(*best));
      best = std::move(certificate);
      if (last) return std::move(*best);
      bits += bits_at_the_end;
    } catch (const TooFewBits&) {
      if (request.bits || count == most_attempts)
        refuse("certify", std::to_string(bits) + " bits do not last to the end of the model, expected more",
               request.bits ? "leave --bits out" : "give a larger --bits");
      bits = growth.next();
    }
  }
}

}  // namespace sinkref
