#pragma once

#include <functional>
#include <span>
#include <vector>

#include "sinkref/forward.h"

namespace sinkref {

/// A layer's logits (positions, V), in the order of the positions asked for.
template <class T>
using LensResult = std::function<void(size_t layer, const Matrix<T>& logits)>;

/// The logit lens (nostalgebraist 2020): the logits that the final norm and W_U make of the residual stream after each
/// layer, layer by layer. The last layer's are the model's, bit for bit. options.progress is told layers; the run
/// that comes before them counts as two. `positions` are absolute, from 0.
template <class T>
void lens(const Model& model, const RunOptions& options, const std::vector<int>& tokens,
          const std::vector<size_t>& positions, const LensResult<T>& result);

/// The `count` largest of a row, largest first; of equals the first.
template <class T>
std::vector<size_t> largest(std::span<const T> row, size_t count);

/// The place of an element among all, from 1 on, in that order.
template <class T>
size_t rank_of(std::span<const T> row, size_t element);

}  // namespace sinkref
