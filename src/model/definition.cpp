// definition.h compiled for float and double, and what runs it in the place of the fast forward pass:
// `--kernel spec`.

#include "sinkref/definition.h"

#include <string>

#include "arithmetic/layers.h"
#include "sinkref/forward.h"

namespace sinkref {

namespace {

/// The keys and values that a sequence's cache holds, as rows.
template <class T>
definition::Past<T> past_of(const KvCache<T>& cache, const ModelConfig& c, size_t first, size_t end) {
  const size_t h = c.head_dim, width = cache_padded(h);
  definition::Past<T> past(c);
  past.positions = cache.length;
  for (size_t layer = first; layer < end; ++layer) {
    Matrix<T>& k = past.k[layer] = Matrix<T>(cache.length, c.kv_heads * h);
    Matrix<T>& v = past.v[layer] = Matrix<T>(cache.length, c.kv_heads * h);
    for (size_t p = 0; p < cache.length; ++p)
      for (size_t head = 0; head < c.kv_heads; ++head)
        for (size_t i = 0; i < h; ++i) {
          k[p][head * h + i] = cache.keys(layer, head)[key_index(p, i, h)];
          v[p][head * h + i] = cache.values(layer, head)[p * width + i];
        }
  }
  return past;
}

}  // namespace

/// One sequence after the other, each by definition::forward().
template <class T>
void Forward<T>::step_by_definition(std::vector<Sequence<T>>& sequences, const Pass& pass, Hooks<T>& hooks,
                                    Matrix<T>& logits) {
  const ModelConfig& c = model_.config();
  const size_t first = extent_.first_block, end = end_block();
  for (size_t begin = 0; begin < pass.rows.size();) {
    const size_t s = pass.rows[begin].sequence, count = pass.ran[s];
    Sequence<T>& sequence = sequences[s];
    const std::span<const Row> rows(pass.rows.data() + begin, count);
    // Of the positions, ascending, a hook on Logits sees those from here on.
    size_t wanted = count;
    while (wanted > 0 && wants_logits(rows[wanted - 1], sequences, hooks)) --wanted;
    const auto observe = [&](Hook hook, size_t head, Matrix<T>& values) {
      if (hook.point == HookPoint::ResidPost)
        require_finite(all_finite(values), "the residual stream after block " + std::to_string(hook.layer));
      if (hook.point == HookPoint::Logits) require_finite(all_finite(values), "the logits");
      const size_t from = hook.point == HookPoint::Logits ? wanted : 0;
      if (hooks.wants(hook) && from < count)
        hooks.call({hook, rows.subspan(from), values.cols, values[from], values.cols, head});
    };
    definition::Past<T> past = sequence.parent == nullptr ? past_of(sequence.cache, c, first, end)
                                                          : past_of(whole(sequence).cache, c, first, end);
    const Matrix<T> of_rows =
        definition::forward<T>(model_, {pass.tokens.data() + begin, count}, past, first, end,
                               wanted < count, options_.softmax, {observe});
    for (size_t layer = first; layer < end; ++layer)
      for (const Row& row : rows)
        for (size_t head = 0; head < c.kv_heads; ++head)
          sequence.cache.store(layer, head, row.position, past.k[layer][row.position] + head * c.head_dim,
                               past.v[layer][row.position] + head * c.head_dim);
    if (extent_.logits == LogitRows::last && wanted < count)
      std::copy_n(of_rows[count - 1], of_rows.cols, logits[s]);
    begin += count;
  }
}

template Matrix<float> definition::forward(const Model&, std::span<const int>, definition::Past<float>&, size_t,
                                           size_t, bool, Softmax, const definition::Observe<float>&);
template Matrix<double> definition::forward(const Model&, std::span<const int>, definition::Past<double>&, size_t,
                                            size_t, bool, Softmax, const definition::Observe<double>&);
template void Forward<float>::step_by_definition(std::vector<Sequence<float>>&, const Pass&,
                                                 Hooks<float>&, Matrix<float>&);
template void Forward<double>::step_by_definition(std::vector<Sequence<double>>&, const Pass&,
                                                  Hooks<double>&, Matrix<double>&);

}  // namespace sinkref
