#pragma once

#include "sinkref/hooks.h"
#include "sinkref/kernels.h"

namespace sinkref {

/// Keys (after RoPE) and values of one sequence, per layer and kv head, laid out as the kernels read
/// them: keys by key_index(), values [position][cache_padded(h)]. Nothing is ever evicted.
template <class T>
class KvCache {
 public:
  KvCache(const ModelConfig& config, size_t layers, size_t capacity);
  /// Of a cache that begins with position 0.
  const T* keys(size_t layer, size_t kv_head) const {
    return keys_.data() + (layer * kv_heads_ + kv_head) * stored_ * head_dim_;
  }
  const T* values(size_t layer, size_t kv_head) const {
    return values_.data() + (layer * kv_heads_ + kv_head) * stored_ * cache_padded(head_dim_);
  }
  /// Copies positions [begin(), end) to where a cache has them that begins with `to_panel`.
  void copy_to(size_t layer, size_t kv_head, size_t end, T* keys, T* values, size_t to_panel = 0) const;
  /// Key and value (h each) of one position below the capacity.
  void store(size_t layer, size_t kv_head, size_t position, const T* key, const T* value);
  /// Copies other's positions [other.begin(), end) here; they are not before this one's.
  void take(const KvCache& other, size_t end);
  size_t begin() const { return begin_; }  ///< the first position: 0 but for after()
  size_t capacity() const { return panel_ + stored_; }
  /// Room for at least `positions`; what is stored stays.
  void reserve(size_t positions);
  /// A copy of the first `positions`, with room for at least `room`, and of what is kept.
  KvCache beginning(size_t positions, size_t room) const;
  /// An empty one of the same shape for positions [positions, room).
  KvCache after(size_t positions, size_t room) const;

  size_t length = 0;  ///< positions filled, those before begin() too; a shorter length reuses a prefix
  KeptValues kept;    ///< what hooks keep of these positions

 private:
  /// One of the same shape that holds nothing, with room for positions [begin, room).
  KvCache(const KvCache& shape, size_t begin, size_t room);

  size_t layers_, kv_heads_, head_dim_;
  size_t begin_ = 0;
  size_t panel_ = 0, stored_ = 0;  ///< what is stored: [panel_, panel_ + stored_), whole panels
  Lines<T> keys_, values_;
};

extern template class KvCache<float>;
extern template class KvCache<double>;

}  // namespace sinkref
