// The key/value cache.

#include "sinkref/kv_cache.h"

#include <algorithm>

namespace sinkref {

template <class T>
KvCache<T>::KvCache(const ModelConfig& config, size_t layers, size_t capacity)
    : layers_(layers), kv_heads_(config.kv_heads), head_dim_(config.head_dim) {
  reserve(capacity);
}

template <class T>
KvCache<T>::KvCache(const KvCache& shape, size_t begin, size_t room)
    : length(begin), layers_(shape.layers_), kv_heads_(shape.kv_heads_), head_dim_(shape.head_dim_),
      begin_(begin), panel_(begin / cache_panel * cache_panel), stored_(cache_padded(room) - panel_) {
  keys_.resize(layers_ * kv_heads_ * stored_ * head_dim_);
  values_.resize(layers_ * kv_heads_ * stored_ * cache_padded(head_dim_));
}

template <class T>
void KvCache<T>::reserve(size_t positions) {
  if (positions <= capacity()) return;
  if (length == begin_) {  // nothing to keep: the old and the new need not be held at once
    Lines<T>().swap(keys_);
    Lines<T>().swap(values_);
  }
  *this = beginning(length, positions);
}

template <class T>
KvCache<T> KvCache<T>::beginning(size_t positions, size_t room) const {
  KvCache copy(*this, begin_, std::max(positions, room));
  copy.length = positions;
  copy.kept = kept;
  if (positions > begin_) copy.take(*this, positions);
  return copy;
}

template <class T>
KvCache<T> KvCache<T>::after(size_t positions, size_t room) const {
  return KvCache(*this, positions, std::max(positions, room));
}

template <class T>
void KvCache<T>::store(size_t layer, size_t kv_head, size_t position, const T* key, const T* value) {
  const size_t head = (layer * kv_heads_ + kv_head) * stored_, at = position - panel_;
  T* keys = keys_.data() + head * head_dim_;
  for (size_t i = 0; i < head_dim_; ++i) keys[key_index(at, i, head_dim_)] = key[i];
  std::copy_n(value, head_dim_, values_.data() + (head + at) * cache_padded(head_dim_));
}

template <class T>
void KvCache<T>::copy_to(size_t layer, size_t kv_head, size_t end, T* keys, T* values,
                         size_t to_panel) const {
  const size_t head = (layer * kv_heads_ + kv_head) * stored_, width = cache_padded(head_dim_);
  for (size_t panel = panel_; panel < end; panel += cache_panel) {
    const T* from = keys_.data() + (head + panel - panel_) * head_dim_;
    T* to = keys + (panel - to_panel) * head_dim_;
    const size_t first = std::max(begin_, panel) - panel, last = std::min(end, panel + cache_panel) - panel;
    if (first == 0 && last == cache_panel) {
      std::copy_n(from, cache_panel * head_dim_, to);
      continue;
    }
    for (size_t i = 0; i < head_dim_; ++i)
      std::copy(from + i * cache_panel + first, from + i * cache_panel + last, to + i * cache_panel + first);
  }
  std::copy_n(values_.data() + (head + begin_ - panel_) * width, (end - begin_) * width,
              values + (begin_ - to_panel) * width);
}

template <class T>
void KvCache<T>::take(const KvCache& other, size_t end) {
  for (size_t i = 0; i < layers_ * kv_heads_; ++i)
    other.copy_to(i / kv_heads_, i % kv_heads_, end, keys_.data() + i * stored_ * head_dim_,
                  values_.data() + i * stored_ * cache_padded(head_dim_), panel_);
}

template class KvCache<float>;
template class KvCache<double>;

}  // namespace sinkref
