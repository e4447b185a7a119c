// Attention(Q,K,V) = softmax(QKᵀ/√h)V of one layer, tile by tile: the query heads that share a
// key/value head (GQA), a few dozen positions at a time, so that scores never fill the memory.

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "arithmetic/layers.h"
#include "base/threads.h"
#include "sinkref/forward.h"

namespace sinkref {

namespace {

constexpr size_t tile_positions = 16;
constexpr size_t kept_bytes = size_t{512} << 10;  // of keys and values, that a core's cache keeps

/// Consecutive rows of one sequence, and query heads that share one key/value head. A sequence with a
/// parent has all its rows in one, for which keys and values are brought together once.
struct Tile {
  size_t first_row, rows;
  size_t first_head, heads;
};

template <class T>
std::vector<Tile> tiles_of(const std::vector<Sequence<T>>& sequences, const std::vector<Row>& rows,
                           size_t all_heads, size_t heads) {
  std::vector<Tile> tiles;
  for (size_t first = 0; first < rows.size();) {
    const size_t most = sequences[rows[first].sequence].parent == nullptr ? tile_positions : rows.size();
    size_t end = first;
    while (end < rows.size() && end - first < most && rows[end].sequence == rows[first].sequence) ++end;
    for (size_t head = 0; head < all_heads; head += heads)
      tiles.push_back({first, end - first, head, heads});
    first = end;
  }
  return tiles;
}

/// Buffers of one thread.
template <class T>
struct TileBuffers {
  Lines<T> q, scores, z;
  std::vector<Visible> visible;
  Lines<T> keys, values;
};

/// Keys and values of positions 0 … end - 1.
template <class T>
struct Seen {
  const T* keys;
  const T* values;
};

/// What a sequence sees: its cache, or, if it has a parent, the caches of the line brought together.
template <class T>
Seen<T> seen_by(const Sequence<T>& sequence, size_t layer, size_t kv_head, size_t head_dim, size_t end,
                TileBuffers<T>& b) {
  if (sequence.parent == nullptr)
    return {sequence.cache.keys(layer, kv_head), sequence.cache.values(layer, kv_head)};
  b.keys.resize(cache_padded(end) * head_dim);
  b.values.resize(end * cache_padded(head_dim));
  for (const Sequence<T>* s = &sequence; s != nullptr; s = s->parent) {
    s->cache.copy_to(layer, kv_head, end, b.keys.data(), b.values.data());
    end = s->cache.begin();
  }
  return {b.keys.data(), b.values.data()};
}

}  // namespace

/// z of every tile, then attn_out = W_O z.
template <class T>
Matrix<T>& Forward<T>::attend(size_t layer, const Matrix<T>& q,
                              const std::vector<Sequence<T>>& sequences, Hooks<T>& hooks) {
  const LayerWeights& w = model_.layer(layer);
  Matrix<T>& z = sized(of_.z, w.wo.cols);
  attend_tiles(layer, q, sequences, hooks, z);
  see(HookPoint::Z, layer, z, hooks);
  Matrix<T>& attn_out = sized(of_.attn_out, w.wo.rows);
  linear<T>(kernels_, z, {{w.wo, w.bo, attn_out}});
  see(HookPoint::AttnOut, layer, attn_out, hooks);
  return attn_out;
}

template <class T>
void Forward<T>::attend_tiles(size_t layer, const Matrix<T>& q, const std::vector<Sequence<T>>& sequences,
                              Hooks<T>& hooks, Matrix<T>& z) {
  const ModelConfig& c = model_.config();
  const size_t h = c.head_dim, group = c.heads / c.kv_heads;
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(h)));
  const Hook scores_hook{HookPoint::AttnScores, layer}, pattern_hook{HookPoint::Pattern, layer};
  const bool hooked = hooks.wants(scores_hook) || hooks.wants(pattern_hook);

  const bool whole = hooked && options_.whole_patterns;

  /// `seen` gives what the heads of a key/value head see.
  const auto run_rows = [&](const Tile& tile, const auto& seen, TileBuffers<T>& b) {
    const std::span<const Row> rows(rows_.data() + tile.first_row, tile.rows);
    const size_t keys = rows.back().position + 1;
    // Whole panels, and no stride that is a power of two (cache associativity).
    const size_t stride = cache_padded(keys) + sum_lanes;
    const size_t queries = tile.heads * tile.rows;  // (head of the tile, position)
    const size_t sharing = std::min(tile.heads, group);  // heads of one key/value head
    // Of whole patterns; a sequence with a parent has room for what one key/value head sees.
    const bool alone = sequences[rows.front().sequence].parent == nullptr;
    const auto each_group = [&](const auto& f) {
      parallel_for(tile.heads / sharing, [&](size_t i) {
        f(i * sharing * tile.rows, seen((tile.first_head + i * sharing) / group));
      }, alone ? 2 : SIZE_MAX);
    };
    b.q.resize(queries * h);
    b.z.resize(queries * h);
    b.scores.resize(queries * stride);
    b.visible.resize(queries);
    for (size_t g = 0; g < tile.heads; ++g)
      for (size_t r = 0; r < tile.rows; ++r) {
        std::copy_n(q.row(tile.first_row + r) + (tile.first_head + g) * h, h, &b.q[(g * tile.rows + r) * h]);
        b.visible[g * tile.rows + r] = visible_to(rows[r].position, c.sliding_window);
      }
    const auto call_hook = [&](Hook hook, size_t g) {
      if (!hooks.wants(hook)) return;
      hooks.call({hook, rows, keys, &b.scores[g * tile.rows * stride], stride,
                  tile.first_head + g});
    };

    each_group([&](size_t first, const Seen<T>& group_sees) {
      kernels_.scores(&b.q[first * h], sharing * tile.rows, group_sees.keys, keys, h, scale,
                      &b.scores[first * stride], stride);
    });
    if (hooked)
      for (size_t i = 0; i < queries; ++i) {
        constexpr T unseen = -std::numeric_limits<T>::infinity();
        T* row = &b.scores[i * stride];
        std::fill(row, row + b.visible[i].begin, unseen);
        std::fill(row + b.visible[i].end, row + keys, unseen);
      }
    for (size_t g = 0; g < tile.heads; ++g) call_hook(scores_hook, g);
    parallel_for(queries, [&](size_t i) {
      kernels_.softmax(&b.scores[i * stride], keys, b.visible[i], options_.softmax);
    }, whole ? 2 : SIZE_MAX);
    for (size_t g = 0; g < tile.heads; ++g) call_hook(pattern_hook, g);
    each_group([&](size_t first, const Seen<T>& group_sees) {
      kernels_.weighted_sum(&b.scores[first * stride], sharing * tile.rows, stride, &b.visible[first],
                            group_sees.values, h, &b.z[first * h]);
    });
    for (size_t g = 0; g < tile.heads; ++g)
      for (size_t r = 0; r < tile.rows; ++r)
        std::copy_n(&b.z[(g * tile.rows + r) * h], h,
                    z.row(tile.first_row + r) + (tile.first_head + g) * h);
  };

  const auto run_tile = [&](const Tile& tile) {
    static thread_local TileBuffers<T> b;
    const Row& last = rows_[tile.first_row + tile.rows - 1];
    const Seen<T> of_group =
        seen_by(sequences[last.sequence], layer, tile.first_head / group, h, last.position + 1, b);
    const auto seen = [&](size_t) { return of_group; };
    for (size_t done = 0; done < tile.rows; done += tile_positions)
      run_rows({tile.first_row + done, std::min(tile_positions, tile.rows - done), tile.first_head, tile.heads},
               seen, b);
  };

  if (whole) {
    TileBuffers<T> b;  // its own: a hook may run a model
    for (size_t first = 0, end = 0; first < rows_.size(); first = end) {
      const Sequence<T>& sequence = sequences[rows_[first].sequence];
      while (end < rows_.size() && rows_[end].sequence == rows_[first].sequence) ++end;
      const size_t positions = rows_[end - 1].position + 1;
      const auto seen = [&](size_t kv_head) { return seen_by(sequence, layer, kv_head, h, positions, b); };
      run_rows({first, end - first, 0, c.heads}, seen, b);
    }
    return;
  }

  std::vector<Tile> tiles = tiles_of(sequences, rows_, c.heads, group);
  if (hooked) {  // hooks see their calls in order, and may throw
    for (const Tile& tile : tiles) run_tile(tile);
    return;
  }
  // So few that threads would wait for each other: one head at a time, if keys and values need not be
  // read again for each.
  size_t longest = 0;
  for (const Row& row : rows_) longest = std::max(longest, row.position + 1);
  if (tiles.size() < 4 * thread_count() &&
      longest * (h + cache_padded(h)) * sizeof(T) <= kept_bytes)
    tiles = tiles_of(sequences, rows_, c.heads, 1);
  parallel_for(tiles.size(), [&](size_t i) { run_tile(tiles[tiles.size() - 1 - i]); });
}

template void Forward<float>::attend_tiles(size_t, const Matrix<float>&,
                                           const std::vector<Sequence<float>>&, Hooks<float>&,
                                           Matrix<float>&);
template void Forward<double>::attend_tiles(size_t, const Matrix<double>&,
                                            const std::vector<Sequence<double>>&, Hooks<double>&,
                                            Matrix<double>&);
template Matrix<float>& Forward<float>::attend(size_t, const Matrix<float>&,
                                               const std::vector<Sequence<float>>&, Hooks<float>&);
template Matrix<double>& Forward<double>::attend(size_t, const Matrix<double>&,
                                                 const std::vector<Sequence<double>>&, Hooks<double>&);

}  // namespace sinkref
