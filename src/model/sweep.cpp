// Activation patching at the least work: a cell begins with its block and its position.

#include "sinkref/sweep.h"

#include <algorithm>
#include <cstring>

#include "sinkref/error.h"

namespace sinkref {

namespace {

// Rows of one batch of cells: wide enough for the products.
constexpr size_t batch_rows = 512;

void check(const Model& model, const std::vector<int>& tokens, const std::vector<int>& source, const PatchSweep& sweep) {
  const ModelConfig& c = model.config();
  check_tokens(model, tokens);
  check_tokens(model, source);
  if (tokens.size() != source.size())
    refuse("the sweep", "the runs have " + std::to_string(tokens.size()) + " and " + std::to_string(source.size()) +
           " tokens, expected as many", "pad or choose the prompts so that their positions correspond");
  if (!is_in_block(sweep.point) || is_attention(sweep.point))
    refuse("the sweep", std::string("patches ") + hook_info(sweep.point).name +
           ", expected an activation of the blocks, neither scores nor pattern", "patch q, k, v or z");
  if (is_attention(sweep.observed.point))
    refuse("the sweep", "looks at " + hook_name(sweep.observed) + ", expected neither scores nor pattern",
           "look at logits or at the residual stream");
  if (sweep.by_head && hook_shape(sweep.point, c).size() != 2)
    refuse("the sweep", std::string(hook_info(sweep.point).name) + " has no heads, expected q, k, v or z",
           "patch attn.hook_z");
  const auto below = [](const std::vector<size_t>& all, size_t limit, const std::string& what) {
    if (all.empty()) refuse("the sweep", "has no " + what + "s, expected at least one", "choose some");
    for (const size_t one : all)
      if (one >= limit)
        refuse("the sweep", "there is no " + what + " " + std::to_string(one) + ", expected 0 to " +
               std::to_string(limit - 1), "choose others");
  };
  below(sweep.layers, c.layers, "layer");
  below(sweep.positions, tokens.size(), "position");
  below({sweep.observed_position}, tokens.size(), "position");
  below({sweep.observed.layer}, c.layers, "layer");
}

/// One cell of a layer.
struct Cell {
  size_t position, head;
};

template <class T>
class Sweeper {
 public:
  Sweeper(const Model& model, const RunOptions& options, const std::vector<int>& tokens, const PatchSweep& sweep)
      : model_(model), options_(options), sweep_(sweep),
        // What comes after the observed position cannot be seen there.
        tokens_(tokens.begin(), tokens.begin() + static_cast<long>(sweep.observed_position + 1)),
        resid_(model.config().layers), ours_(model.config().layers), theirs_(model.config().layers) {
    options_.chunk = tokens_.size();
    options_.progress = nullptr;
  }

  void run(const std::vector<int>& source, const SweepResult<T>& result, const std::function<void(size_t, size_t)>& progress) {
    read_source({source.begin(), source.begin() + static_cast<long>(tokens_.size())});
    read_base();
    const size_t heads = sweep_.by_head ? hook_shape(sweep_.point, model_.config())[0] : 1;
    std::vector<Cell> cells;
    for (const size_t position : sweep_.positions)
      for (size_t head = 0; head < heads; ++head) cells.push_back({position, head});
    const size_t all = cells.size() * sweep_.layers.size();
    size_t first = 0;
    for (const size_t layer : sweep_.layers) {
      for (size_t begin = 0; begin < cells.size();) {
        size_t end = begin, rows = 0;
        while (end < cells.size() && (end == begin || rows + rows_of(cells[end]) <= batch_rows))
          rows += rows_of(cells[end++]);
        result(first, run_cells(layer, {cells.data() + begin, end - begin}));
        first += end - begin;
        begin = end;
        if (progress) progress(first, all);
      }
    }
  }

 private:
  size_t rows_of(const Cell& cell) const { return tokens_.size() - std::min(cell.position, tokens_.size()); }

  void keep(Hook hook, Matrix<T>& to, Hooks<T>& hooks) const {
    hooks.add(hook, [&to, n = tokens_.size()](const Activation<T>& a) {
      if (to.rows == 0) to = Matrix<T>(n, a.width);
      for (size_t r = 0; r < a.rows.size(); ++r) std::copy_n(a.row(r), a.width, to.row(a.rows[r].position));
    });
  }

  /// What the hooks need from a block on, with `each_block` after each but the last.
  Extent watched(Hooks<T>& hooks, size_t first_block = 0) const {
    Extent extent = extent_of(hooks, model_.config());
    extent.first_block = first_block;
    if (sweep_.each_block)
      for (size_t layer = first_block; layer + 1 < extent.end_block; ++layer)
        hooks.add({HookPoint::ResidPost, layer}, [this](const Activation<T>&) { sweep_.each_block(); });
    return extent;
  }

  void read_source(const std::vector<int>& source) {
    Hooks<T> hooks;
    for (const size_t layer : sweep_.layers) keep({sweep_.point, layer}, theirs_[layer], hooks);
    Forward<T> forward(model_, options_, watched(hooks));
    std::vector<Sequence<T>> batch = {forward.start(source)};
    forward.run(batch, hooks);
    hooks.require_all_called();
  }

  /// The run that is patched: its keys and values, its residual stream, what is patched, and the observed row.
  void read_base() {
    Hooks<T> hooks;
    for (const size_t layer : sweep_.layers) {
      keep({HookPoint::ResidPre, layer}, resid_[layer], hooks);
      keep({sweep_.point, layer}, ours_[layer], hooks);
    }
    keep(sweep_.observed, observed_, hooks);
    Forward<T> forward(model_, options_, watched(hooks));
    base_.push_back(forward.start(tokens_));
    base_[0].logits_from = sweep_.observed_position;
    forward.run(base_, hooks);
  }

  /// Where a cell's values begin in a row, and how many they are.
  std::pair<size_t, size_t> part(const Cell& cell, size_t width) const {
    if (!sweep_.by_head) return {0, width};
    const size_t h = hook_shape(sweep_.point, model_.config())[1];
    return {cell.head * h, h};
  }

  /// Whether a patch can reach what is observed: it does not lie behind it, and its numbers are other ones.
  bool can_change(size_t layer, const Cell& cell) const {
    const size_t layers = model_.config().layers;
    if (hook_index({sweep_.point, layer}, layers) > hook_index(sweep_.observed, layers)) return false;
    if (cell.position >= tokens_.size()) return false;
    const auto [begin, count] = part(cell, ours_[layer].cols);
    return std::memcmp(ours_[layer].row(cell.position) + begin, theirs_[layer].row(cell.position) + begin,
                       count * sizeof(T)) != 0;
  }

  Matrix<T> run_cells(size_t layer, std::span<const Cell> cells) {
    Matrix<T> rows(cells.size(), observed_.cols);
    std::vector<Sequence<T>> batch;
    std::vector<size_t> cell_of;
    for (size_t i = 0; i < cells.size(); ++i) {
      const size_t position = cells[i].position;
      if (!can_change(layer, cells[i])) {
        std::copy_n(observed_.row(sweep_.observed_position), rows.cols, rows.row(i));
        continue;
      }
      Sequence<T> cell{base_[0].cache.after(position, tokens_.size()),
                       {tokens_.begin() + static_cast<long>(position), tokens_.end()}, sweep_.observed_position};
      if (position > 0) cell.parent = &base_[0];
      batch.push_back(std::move(cell));
      cell_of.push_back(i);
    }
    if (batch.empty()) return rows;
    Hooks<T> hooks;
    hooks.add({HookPoint::ResidPre, layer}, [&](const Activation<T>& a) {  // as the earlier blocks left it
      for (size_t r = 0; r < a.rows.size(); ++r)
        std::copy_n(resid_[layer].row(a.rows[r].position), a.width, a.row(r));
    });
    hooks.add({sweep_.point, layer}, [&](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) {
        const Cell& cell = cells[cell_of[a.rows[r].sequence]];
        const auto [begin, count] = part(cell, a.width);
        if (a.rows[r].position == cell.position)
          std::copy_n(theirs_[layer].row(cell.position) + begin, count, a.row(r) + begin);
      }
    });
    hooks.add(sweep_.observed, [&](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r)
        if (a.rows[r].position == sweep_.observed_position)
          std::copy_n(a.row(r), a.width, rows.row(cell_of[a.rows[r].sequence]));
    });
    Forward<T>(model_, options_, watched(hooks, layer)).run(batch, hooks);
    hooks.require_all_called();
    return rows;
  }

  const Model& model_;
  RunOptions options_;
  const PatchSweep& sweep_;
  const std::vector<int> tokens_;
  std::vector<Matrix<T>> resid_, ours_, theirs_;  ///< by layer: (positions, width)
  Matrix<T> observed_;
  std::vector<Sequence<T>> base_;  ///< one
};

}  // namespace

template <class T>
void patch_sweep(const Model& model, const RunOptions& options, const std::vector<int>& tokens,
                 const std::vector<int>& source, const PatchSweep& sweep, const SweepResult<T>& result) {
  check(model, tokens, source, sweep);
  Sweeper<T>(model, options, tokens, sweep).run(source, result, options.progress);
}

template void patch_sweep<float>(const Model&, const RunOptions&, const std::vector<int>&, const std::vector<int>&,
                                 const PatchSweep&, const SweepResult<float>&);
template void patch_sweep<double>(const Model&, const RunOptions&, const std::vector<int>&, const std::vector<int>&,
                                  const PatchSweep&, const SweepResult<double>&);

}  // namespace sinkref
