// definition.h compiled for float and double, and what runs it in the place of the fast forward pass:
// `--kernel spec`.

#include "sinkref/definition.h"

#include <string>

#include "sinkref/forward.h"

namespace sinkref {

namespace {

/// The keys and values that a sequence's cache holds, as rows.
template <class T>
definition::Past<T> past_of(const KvCache<T>& cache, const ModelConfig& c, size_t first, size_t end) {
  const size_t h = c.head_dim, width = cache_padded(h);
  definition::Past<T> past{cache.length, {}, {}};
  past.k.resize(c.layers);
  past.v.resize(c.layers);
  for (size_t layer = first; layer < end; ++layer)
    for (size_t p = 0; p < cache.length; ++p) {
      std::vector<T>& k = past.k[layer].emplace_back();
      std::vector<T>& v = past.v[layer].emplace_back();
      for (size_t head = 0; head < c.kv_heads; ++head) {
        const T* values = cache.values(layer, head) + p * width;
        for (size_t i = 0; i < h; ++i) k.push_back(cache.keys(layer, head)[key_index(p, i, h)]);
        v.insert(v.end(), values, values + h);
      }
    }
  return past;
}

template <class T>
bool all_finite(const definition::Rows<T>& values) {
  return std::all_of(values.begin(), values.end(), [](const std::vector<T>& row) {
    return std::all_of(row.begin(), row.end(), [](T x) { return std::isfinite(x); });
  });
}

/// Rows from `first` on, one after the other as hooks take them.
template <class T>
std::vector<T> packed(const definition::Rows<T>& values, size_t first) {
  std::vector<T> all;
  for (size_t r = first; r < values.size(); ++r) all.insert(all.end(), values[r].begin(), values[r].end());
  return all;
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
    const auto see = [&](Hook hook, size_t head, definition::Rows<T>& values) {
      const size_t from = hook.point == HookPoint::Logits ? wanted : 0;
      if (!hooks.wants(hook) || from == count) return;
      std::vector<T> together = packed(values, from);
      const size_t width = values[0].size();
      hooks.call({hook, rows.subspan(from), width, together.data(), width, head});
      for (size_t r = from; r < count; ++r)
        std::copy_n(together.begin() + static_cast<std::ptrdiff_t>((r - from) * width), width, values[r].begin());
    };
    const auto observe = [&](Hook hook, size_t head, definition::Rows<T>& values) {
      if (hook.point == HookPoint::ResidPost)
        require_finite(all_finite(values), "the residual stream after block " + std::to_string(hook.layer));
      if (hook.point == HookPoint::Logits) require_finite(all_finite(values), "the logits");
      see(hook, head, values);
    };
    definition::Past<T> past = sequence.parent == nullptr ? past_of(sequence.cache, c, first, end)
                                                          : past_of(whole(sequence).cache, c, first, end);
    const definition::Rows<T> of_rows =
        definition::forward<T>(model_, {pass.tokens.data() + begin, count}, past, first, end,
                               wanted < count, options_.softmax, {observe});
    for (size_t layer = first; layer < end; ++layer)
      for (const Row& row : rows)
        for (size_t head = 0; head < c.kv_heads; ++head)
          sequence.cache.store(layer, head, row.position, &past.k[layer][row.position][head * c.head_dim],
                               &past.v[layer][row.position][head * c.head_dim]);
    if (extent_.logits == LogitRows::last && wanted < count)
      std::copy(of_rows.back().begin(), of_rows.back().end(), logits.row(s));
    begin += count;
  }
}

template void Forward<float>::step_by_definition(std::vector<Sequence<float>>&, const Pass&,
                                                 Hooks<float>&, Matrix<float>&);
template void Forward<double>::step_by_definition(std::vector<Sequence<double>>&, const Pass&,
                                                  Hooks<double>&, Matrix<double>&);

}  // namespace sinkref
