// The logit lens: each layer's stream takes the place of the embedding in a run without blocks.

#include "sinkref/lens.h"

#include <algorithm>
#include <numeric>

#include "sinkref/error.h"

namespace sinkref {

namespace {

/// The residual stream after each layer at some positions: one matrix (positions, d) a layer.
template <class T>
std::vector<Matrix<T>> streams(const Model& model, const RunOptions& options, const std::vector<int>& tokens,
                               const std::vector<size_t>& positions) {
  const ModelConfig& c = model.config();
  std::vector<Matrix<T>> all(c.layers, Matrix<T>(positions.size(), c.hidden_size));
  Hooks<T> hooks;
  for (size_t layer = 0; layer < c.layers; ++layer)
    hooks.add({HookPoint::ResidPost, layer}, [&, layer](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        for (size_t i = 0; i < positions.size(); ++i)
          if (a.rows[r].position == positions[i]) std::copy_n(a.row(r), a.width, all[layer].row(i));
    });
  run(model, options, {tokens}, hooks);
  return all;
}

}  // namespace

template <class T>
void lens(const Model& model, const RunOptions& options, const std::vector<int>& tokens,
          const std::vector<size_t>& positions, const LensResult<T>& result) {
  const ModelConfig& c = model.config();
  check_tokens(model, tokens);
  if (positions.empty()) refuse("the lens", "has no positions, expected at least one", "choose some");
  for (const size_t position : positions)
    if (position >= tokens.size())
      refuse("the lens", "there is no position " + std::to_string(position) + ", expected 0 to " +
             std::to_string(tokens.size() - 1), "choose others");
  const auto done = [&](size_t layers) {
    if (options.progress) options.progress(2 + layers, 2 + c.layers);
  };
  const RunOptions quiet = without_progress(options);
  const std::vector<Matrix<T>> stream = streams<T>(model, quiet, tokens, positions);
  done(0);
  for (size_t layer = 0; layer < c.layers; ++layer) {
    Matrix<T> logits(positions.size(), c.vocab_size);
    Hooks<T> hooks;  // a position of this run is a place in `positions`
    hooks.add({HookPoint::Embed, 0}, [&](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) std::copy_n(stream[layer].row(a.rows[r].position), a.width, a.row(r));
    });
    hooks.add({HookPoint::Logits, 0}, [&](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) std::copy_n(a.row(r), a.width, logits.row(a.rows[r].position));
    });
    run(model, quiet, {std::vector<int>(positions.size(), 0)}, hooks, c.layers);
    result(layer, logits);
    done(layer + 1);
  }
}

template <class T>
std::vector<size_t> largest(std::span<const T> row, size_t count) {
  std::vector<size_t> order(row.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto end = order.begin() + static_cast<long>(std::min(count, row.size()));
  std::partial_sort(order.begin(), end, order.end(),
                    [&](size_t a, size_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
  order.erase(end, order.end());
  return order;
}

template <class T>
size_t rank_of(std::span<const T> row, size_t element) {
  size_t rank = 1;
  for (size_t i = 0; i < row.size(); ++i)
    rank += row[i] > row[element] || (row[i] == row[element] && i < element);
  return rank;
}

#define SINKREF_LENS(T)                                                                                          \
  template void lens<T>(const Model&, const RunOptions&, const std::vector<int>&, const std::vector<size_t>&,   \
                        const LensResult<T>&);                                                                   \
  template std::vector<size_t> largest<T>(std::span<const T>, size_t);                                          \
  template size_t rank_of<T>(std::span<const T>, size_t);
SINKREF_LENS(float)
SINKREF_LENS(double)
#undef SINKREF_LENS

}  // namespace sinkref
