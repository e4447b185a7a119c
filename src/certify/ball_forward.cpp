#include "certify/ball_forward.h"

#include <algorithm>
#include <limits>

#include "certify/exact_product.h"
#include "certify/real_rope.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

constexpr long guard_bits = 32;        // below the widest radius; finer is noise
constexpr long least_bits = 64;
constexpr long fewest_bits_left = 10;  // with fewer, the balls soon say nothing
constexpr size_t logit_rows = 8;       // at a time: a vocabulary of balls is large

/// The bits between the middles and the radius of the row that has the fewest; none if all is exact.
std::optional<long> bits_left(const Matrix<Ball>& x) {
  std::vector<long> left(x.rows, std::numeric_limits<long>::max());
  parallel_for(x.rows, [&](size_t p) {
    mag_t middle, radius, entry;
    mag_init(middle);
    mag_init(radius);
    mag_init(entry);
    for (size_t i = 0; i < x.cols; ++i) {
      arf_get_mag(entry, x[p][i].middle());
      mag_max(middle, middle, entry);
      mag_max(radius, radius, x[p][i].radius());
    }
    if (mag_is_inf(middle) || mag_is_inf(radius)) left[p] = 0;
    else if (!mag_is_zero(radius))
      left[p] = mag_is_zero(middle) ? 0
                                    : static_cast<long>(mag_get_d_log2_approx(middle) - mag_get_d_log2_approx(radius));
    mag_clear(middle);
    mag_clear(radius);
    mag_clear(entry);
  });
  const long fewest = *std::min_element(left.begin(), left.end());
  if (fewest == std::numeric_limits<long>::max()) return std::nullopt;
  return fewest;
}

/// add_patch() and add_ablation() for a prompt that is run as a whole.
void intervene(const BallRun& run, Hook hook, Matrix<Ball>& values) {
  const std::vector<HookPoint> pinned = pinned_points(run.patch_site);
  if (std::find(pinned.begin(), pinned.end(), hook.point) != pinned.end())
    for (const Neurons& layer : run.patch)
      if (layer.layer == hook.layer)
        for (const size_t neuron : layer.indices)
          for (size_t p = 2; p < values.rows; ++p) values[p][neuron] = values[1][neuron];
  if (hook.point == HookPoint::Post)
    for (const Neurons& layer : run.ablation)
      if (layer.layer == hook.layer)
        for (const size_t neuron : layer.indices)
          for (size_t p = 0; p < values.rows; ++p) values[p][neuron] = Ball(0);
}

/// What RoPE turns by in the place of the page's own table.
std::optional<Turns> other_turns(const BallRun& run, const ModelConfig& config) {
  const size_t positions = run.tokens.size(), half = config.head_dim / 2;
  if (run.rope == RopeTable::stored) return std::nullopt;
  if (run.rope == RopeTable::real) return real_turns(config, positions);
  if (run.cosines.size() < positions * half || run.sines.size() < positions * half)
    refuse("--rope",
           "holds fewer positions, expected " + std::to_string(positions) + " of " + std::to_string(half) + " numbers",
           "give a table of this model that is long enough");
  Turns turns{Matrix<Ball>(positions, half), Matrix<Ball>(positions, half)};
  std::copy_n(run.cosines.begin(), positions * half, turns.cosines[0]);
  std::copy_n(run.sines.begin(), positions * half, turns.sines[0]);
  return turns;
}

}  // namespace

void run_balls(const Model& model, const BallRun& run, long bits, size_t depth, bool logits, const SeeBalls& see,
               const BallProgress& progress) {
  const ModelConfig& config = model.config();
  Ball::precision = bits;
  const std::span<const int> tokens = run.tokens;
  definition::Past<Ball> past(config);
  const std::optional<Turns> turns = other_turns(run, config);
  Matrix<Ball> unrotated_q, unrotated_k, last;
  const auto observe = [&](Hook hook, size_t head, Matrix<Ball>& values) {
    intervene(run, hook, values);
    if (turns) {
      if (hook.point == HookPoint::Q) unrotated_q = values;
      if (hook.point == HookPoint::K) unrotated_k = values;
      if (hook.point == HookPoint::RotQ) values = rotated(std::move(unrotated_q), *turns);
      if (hook.point == HookPoint::RotK) values = rotated(std::move(unrotated_k), *turns);
    }
    see(hook, head, 0, values);
    if (hook.point == HookPoint::ResidMid)  // nothing reads them any more
      past.k[hook.layer] = past.v[hook.layer] = {};
    if (hook.point != HookPoint::ResidPost) return;
    const long left = bits_left(values).value_or(bits);
    if (left < fewest_bits_left) throw TooFewBits();
    Ball::precision = std::min(bits, std::max(least_bits, left + guard_bits));
    if (progress.block) progress.block(hook.layer, left);
    if (logits && hook.layer + 1 == config.layers) last = values;
  };
  definition::forward<Ball>(model, tokens, past, 0, depth, false, run.softmax, {observe});
  if (!logits) return;
  // The page's head once more, for a few rows at a time.
  for (size_t first = 0; first < tokens.size(); first += logit_rows) {
    const size_t rows = std::min(logit_rows, tokens.size() - first);
    const auto observe_head = [&](Hook hook, size_t head, Matrix<Ball>& values) {
      if (hook.point == HookPoint::Embed) std::copy_n(last[first], rows * last.cols, values[0]);
      if (hook.point == HookPoint::Logits) see(hook, head, first, values);
    };
    definition::Past<Ball> none(config);
    definition::forward<Ball>(model, tokens.subspan(first, rows), none, config.layers, config.layers, true, run.softmax,
                              {observe_head});
    if (progress.logits) progress.logits(first + rows, tokens.size());
  }
}

}  // namespace sinkref
