// Which rows run in a step: chunks, and beginnings that several sequences share.

#include "sinkref/batch.h"

#include <algorithm>
#include <stdexcept>

namespace sinkref {

namespace {

template <class T>
Sequence<T>& first_of_line(Sequence<T>& sequence) {
  Sequence<T>* first = &sequence;
  while (first->parent != nullptr) first = first->parent;
  return *first;
}

/// Whether what comes before s is run by the end of a step of ran[i] tokens of each sequence.
template <class T>
bool parent_is_done(const std::vector<Sequence<T>>& sequences, const std::vector<size_t>& ran,
                    const Sequence<T>& s) {
  if (s.parent == nullptr || s.parent->pending.empty()) return true;
  const std::ptrdiff_t index = s.parent - sequences.data();
  if (index < 0 || index >= &s - sequences.data())
    throw std::logic_error("a sequence's parent is neither complete nor before it in the batch");
  return s.parent->pending.size() == ran[static_cast<size_t>(index)];
}

}  // namespace

template <class T>
Pass next_pass(std::vector<Sequence<T>>& sequences, size_t chunk, bool prompt) {
  Pass pass;
  pass.ran.assign(sequences.size(), 0);
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence<T>& s = sequences[i];
    if (!parent_is_done(sequences, pass.ran, s)) continue;
    pass.ran[i] = std::min(chunk, s.pending.size());
    KeptValues* kept = &first_of_line(s).cache.kept;
    for (size_t t = 0; t < pass.ran[i]; ++t) {
      pass.rows.push_back({i, s.cache.length + t, prompt, kept});
      pass.tokens.push_back(s.pending[t]);
    }
  }
  return pass;
}

template <class T>
void finish_pass(std::vector<Sequence<T>>& sequences, const Pass& pass) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    std::vector<int>& pending = sequences[i].pending;
    sequences[i].cache.length += pass.ran[i];
    pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(pass.ran[i]));
  }
}

template <class T>
Sequence<T> whole(const Sequence<T>& sequence) {
  size_t end = sequence.cache.length;
  Sequence<T> one{sequence.cache.after(0, end), {}};
  one.cache.length = end;
  for (const Sequence<T>* s = &sequence; s != nullptr; s = s->parent) {
    one.cache.take(s->cache, end);
    one.cache.kept = s->cache.kept;
    end = s->cache.begin();
  }
  return one;
}

#define SINKREF_BATCH(T)                                                        \
  template Pass next_pass<T>(std::vector<Sequence<T>>&, size_t, bool);          \
  template void finish_pass<T>(std::vector<Sequence<T>>&, const Pass&);         \
  template Sequence<T> whole<T>(const Sequence<T>&);
SINKREF_BATCH(float)
SINKREF_BATCH(double)
#undef SINKREF_BATCH

}  // namespace sinkref
