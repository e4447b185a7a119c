// patch-sweep: activation patching over layers and positions, as a heat map or as JSON.

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <tuple>
#include <utility>

#include "base/output_file.h"
#include "base/progress.h"
#include "base/split.h"
#include "cli/commands.h"
#include "cli/ids.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/words.h"
#include "sinkref/error.h"
#include "sinkref/metric.h"
#include "sinkref/sweep.h"

namespace sinkref::cli {

using nlohmann::ordered_json;
using Kind = Metric::Kind;

namespace {

struct PatchSweepCommand : RunningCommand {
  std::optional<std::string> clean, clean_tokens, corrupted, corrupted_tokens, answer, wrong, out;
  std::optional<size_t> answer_token, wrong_token;
  std::string hook = "hook_resid_pre", layers = "all", positions = "all", observed = "logits", observed_position = "-1";
  Kind metric = Kind::logit_difference;
  bool by_head = false, force = false;

  OptionTable table() override {
    std::vector<std::pair<const char*, Kind>> metrics;
    for (const Kind kind : metric_kinds) metrics.emplace_back(metric_name(kind), kind);
    return joined(
        {{{"clean", text("TEXT", clean), "the prompt whose activations are patched in"},
          {"clean-tokens", text("IDS", clean_tokens), "the same as token ids, as 1,2,3"},
          {"corrupted", text("TEXT", corrupted), "the prompt that is run with them: as many tokens"},
          {"corrupted-tokens", text("IDS", corrupted_tokens), "the same as token ids"}},
         bos_row(),
         {{"metric", choice<Kind>(metric, metrics),
           "what is measured: logit of --answer minus that of --wrong, (log-)probability of --answer, or the norm of "
           "the row that is observed"},
          {"answer", text("TEXT", answer), "the token that the clean prompt's answer is, with the blank before it"},
          {"answer-token", number(answer_token, 0), "the same as an id"},
          {"wrong", text("TEXT", wrong), "the token that the corrupted prompt's answer is"},
          {"wrong-token", number(wrong_token, 0), "the same as an id"},
          {"hook", text("NAMES", hook), "what is patched, as resid_pre or attn_out,mlp_out: one sweep each"},
          {"by-head", flag(by_head), "each head by itself, of z, q, k or v"},
          {"layers", text("LIST", layers), "the layers to patch, as 0,5,-1; or all"},
          {"positions", text("LIST", positions), "the positions to patch, as 0,5,-1; or all"},
          {"observed", text("HOOK", observed), "the hook whose row is measured, as blocks.2.hook_resid_post for norm"},
          {"observed-position", text("POSITION", observed_position), "its position; negative ones count from the end"}},
         output_rows(out, force, "FILE", "a file for the JSON"), softmax_row(), precision_row(), kernel_row()});
  }
  int run() const override;
};

/// One hook's sweep: a number for each layer, position and head.
struct Component {
  HookPoint point;
  size_t heads = 1;
  std::vector<double> values;
};

struct Study {
  std::vector<int> clean, corrupted;
  Metric metric;
  PatchSweep sweep;  ///< but for its point
  double clean_value = 0, corrupted_value = 0;
  std::vector<Component> components;

  /// The share of the metric's difference that a patch brings over; the metric itself where there is no difference.
  double restored(double value) const {
    return clean_value == corrupted_value ? value : (value - corrupted_value) / (clean_value - corrupted_value);
  }
};

/// How far a sweep is: a cell is worth the rows and blocks that it may have to run.
std::vector<double> work_of_cells(const PatchSweep& sweep, size_t blocks, size_t heads) {
  std::vector<double> until = {0};
  for (const size_t layer : sweep.layers)
    for (const size_t position : sweep.positions)
      for (size_t head = 0; head < heads; ++head) {
        const size_t rows = sweep.observed_position + 1 - std::min(position, sweep.observed_position + 1);
        until.push_back(until.back() + static_cast<double>(rows * (blocks - layer)));
      }
  return until;
}

/// The observed row of a run that is not patched.
template <class T>
std::vector<T> observed_row(const Model& model, const RunOptions& options, std::vector<int> tokens,
                            const PatchSweep& sweep) {
  tokens.resize(sweep.observed_position + 1);
  std::vector<T> row;
  Hooks<T> hooks;
  hooks.add(sweep.observed, [&](const Activation<T>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r)
      if (a.rows[r].position == sweep.observed_position) row.assign(a.row(r), a.row(r) + a.width);
  });
  sinkref::run(model, options, {tokens}, hooks);
  return row;
}

template <class T>
void measure_all(const Model& model, RunOptions options, Study& study) {
  const ModelConfig& c = model.config();
  const Kernels<T>& kernels = find_kernels<T>(options.kernel);
  Progress progress = Progress::to_stderr();
  std::vector<std::vector<double>> work;
  double all = 0;
  for (const Component& component : study.components) {
    work.push_back(work_of_cells(study.sweep, c.layers, component.heads));
    all += work.back().back();
  }
  progress.plan(all);
  for (size_t i = 0; i < study.components.size(); ++i) {
    Component& component = study.components[i];
    PatchSweep sweep = study.sweep;
    sweep.point = component.point;
    const std::string name = hook_info(component.point).name;
    options.progress = [&, begun = false](size_t cells, size_t of) mutable {
      // With the first cells: what is refused stays one line.
      if (!std::exchange(begun, true)) progress.step("patching " + name, work[i].back());
      progress.share(work[i].back() > 0 ? work[i][cells] / work[i].back() : 1,
                     "patching " + name + ", cell " + std::to_string(cells) + " of " + std::to_string(of));
    };
    const auto each = [&](size_t, const Matrix<T>& rows) {
      for (size_t r = 0; r < rows.rows; ++r)
        component.values.push_back(measure<T>(study.metric, kernels, {rows.row(r), rows.cols}));
    };
    patch_sweep<T>(model, options, study.corrupted, study.clean, sweep, each);
  }
  progress.finish();
  const RunOptions quiet = without_progress(options);
  const auto whole = [&](const std::vector<int>& tokens) {
    return measure<T>(study.metric, kernels, observed_row<T>(model, quiet, tokens, study.sweep));
  };
  study.clean_value = whole(study.clean);
  study.corrupted_value = whole(study.corrupted);
}

// ------------------------------------------------------------------------------------------------------------- asked

Metric read_metric(const PatchSweepCommand& options, const Hook& observed, const ModelConfig& config, Words& words) {
  Metric metric{options.metric, 0, 0};
  const size_t needed = metric_tokens(metric.kind);
  const std::string name = std::string("--metric ") + metric_name(metric.kind);
  check_observed(metric.kind, observed);
  const std::optional<size_t> tokens[] = {words.token(options.answer, options.answer_token, "answer"),
                                          words.token(options.wrong, options.wrong_token, "wrong")};
  for (const size_t i : {0, 1}) {
    const std::string option = i == 0 ? "--answer" : "--wrong";
    if (i < needed && !tokens[i])
      refuse(name, "has no " + option + ", expected a token", "give " + option + " ' word' or " + option + "-token ID");
    if (i >= needed && tokens[i]) refuse(name, "takes no " + option + ", found one", "leave it out");
  }
  metric.token = tokens[0].value_or(0);
  metric.other = tokens[1].value_or(0);
  check_metric(metric, hook_shape(observed.point, config)[0]);
  return metric;
}

Study read_study(const PatchSweepCommand& options, const Model& model, Words& words) {
  const ModelConfig& c = model.config();
  Study study;
  for (const std::string_view name : split(options.hook, ',')) {
    const HookPoint point = block_point(std::string(name), "--hook");
    const std::vector<size_t> shape = hook_shape(point, c);
    study.components.push_back({point, options.by_head ? shape[0] : 1, {}});
  }
  const std::vector<Hook> observed = select_hooks(options.observed, c.layers, "--observed");
  if (observed.size() != 1)
    refuse("--observed " + quoted(options.observed), "stands for " + std::to_string(observed.size()) +
           " hooks, expected one", "name it with its layer");
  study.metric = read_metric(options, observed[0], c, words);
  study.corrupted = words.prompt(options.corrupted, options.corrupted_tokens, "corrupted");
  study.clean = words.prompt(options.clean, options.clean_tokens, "clean");
  if (study.clean.size() != study.corrupted.size())
    refuse("--clean", "is " + std::to_string(study.clean.size()) + " tokens and --corrupted " +
           std::to_string(study.corrupted.size()) + ", expected as many",
           "choose words of as many tokens; sinkref tokenize shows them");
  const size_t length = study.corrupted.size();
  const std::vector<size_t> at = parse_places(options.observed_position, length, "--observed-position", "position");
  if (at.size() != 1)
    refuse("--observed-position " + quoted(options.observed_position), "stands for " + std::to_string(at.size()) +
           " positions, expected one", "give one number");
  study.sweep.layers = parse_places(options.layers, c.layers, "--layers", "layer");
  study.sweep.positions = parse_places(options.positions, length, "--positions", "position");
  study.sweep.by_head = options.by_head;
  study.sweep.observed = observed[0];
  study.sweep.observed_position = at[0];
  return study;
}

// ------------------------------------------------------------------------------------------------------------- shown

ordered_json prompt_json(const std::vector<int>& tokens, double value, Words& words) {
  ordered_json texts = ordered_json::array();
  for (const int id : tokens) texts.push_back(words.name(static_cast<size_t>(id)));
  return {{"tokens", tokens}, {"texts", texts}, {"value", value}};
}

/// [layer][position], by head [layer][position][head].
ordered_json values_json(const Study& study, const Component& component) {
  ordered_json layers = ordered_json::array();
  auto value = component.values.begin();
  for (size_t l = 0; l < study.sweep.layers.size(); ++l) {
    ordered_json row = ordered_json::array();
    for (size_t p = 0; p < study.sweep.positions.size(); ++p) {
      if (!study.sweep.by_head) {
        row.push_back(*value++);
        continue;
      }
      row.push_back(std::vector<double>(value, value + static_cast<long>(component.heads)));
      value += static_cast<long>(component.heads);
    }
    layers.push_back(std::move(row));
  }
  return layers;
}

ordered_json study_json(const PatchSweepCommand& options, const Study& study, Words& words) {
  const size_t tokens = metric_tokens(study.metric.kind);
  ordered_json sweeps = ordered_json::array();
  for (const Component& component : study.components)
    sweeps.push_back({{"hook", hook_info(component.point).name}, {"values", values_json(study, component)}});
  return {{"model", last_part(options.model)},
          {"clean", prompt_json(study.clean, study.clean_value, words)},
          {"corrupted", prompt_json(study.corrupted, study.corrupted_value, words)},
          {"metric",
           {{"name", metric_name(study.metric.kind)},
            {"answer", tokens > 0 ? ordered_json(study.metric.token) : ordered_json()},
            {"wrong", tokens > 1 ? ordered_json(study.metric.other) : ordered_json()},
            {"observed", hook_name(study.sweep.observed)},
            {"position", study.sweep.observed_position}}},
          {"layers", study.sweep.layers},
          {"positions", study.sweep.positions},
          {"by_head", study.sweep.by_head},
          {"sweeps", sweeps}};
}

constexpr size_t label_columns = 20;

/// A share in percent; on a terminal red towards the clean run, blue away from it.
void print_cell(double share, bool percent, bool color) {
  char text[16];
  const double shown = percent ? std::round(100 * share) : share;
  if (percent && std::fabs(shown) > 999) std::snprintf(text, sizeof text, "%5s", shown > 0 ? ">999" : "<-999");
  else std::snprintf(text, sizeof text, percent ? "%5.0f" : " %8.3g", shown == 0 ? 0.0 : shown);
  if (!color || !percent) {
    std::cout << text;
    return;
  }
  constexpr int warm[] = {231, 224, 217, 210, 203, 196}, cold[] = {231, 195, 159, 123, 81, 39};
  const auto depth = static_cast<size_t>(std::lround(5 * std::min(1.0, std::fabs(share))));
  std::cout << "\033[48;5;" << (share < 0 ? cold : warm)[depth] << ";38;5;16m" << text << "\033[0m";
}

/// Rows of cells, each with its label; the columns are numbered.
void print_table(const std::string& what, const std::vector<std::string>& labels, const std::vector<size_t>& columns,
                 bool percent, const std::function<double(size_t row, size_t column)>& share) {
  const int width = percent ? 5 : 9;
  std::cout << what << std::string(label_columns - std::min(label_columns, what.size()), ' ');
  for (const size_t column : columns) std::printf("%*zu", width, column);
  std::cout << '\n';
  for (size_t row = 0; row < labels.size(); ++row) {
    std::cout << labels[row];
    for (size_t column = 0; column < columns.size(); ++column)
      print_cell(share(row, column), percent, percent && isatty(1) == 1);
    std::cout << '\n';
  }
}

std::string position_label(const Study& study, size_t position, Words& words) {
  char number[16];
  std::snprintf(number, sizeof number, "%4zu ", position);
  return number + in_columns(words.name(static_cast<size_t>(study.corrupted[position])), label_columns - 5);
}

void print_component(const Study& study, const Component& component, Words& words) {
  const PatchSweep& sweep = study.sweep;
  const bool percent = study.clean_value != study.corrupted_value;
  const size_t positions = sweep.positions.size(), heads = component.heads;
  const auto share = [&](size_t layer, size_t position, size_t head) {
    return study.restored(component.values[(layer * positions + position) * heads + head]);
  };
  std::cout << '\n' << hook_info(component.point).name;
  std::vector<std::string> labels;
  if (!sweep.by_head) {
    std::cout << '\n';
    for (const size_t position : sweep.positions) labels.push_back(position_label(study, position, words));
    print_table("position      layer", labels, sweep.layers, percent,
                [&](size_t row, size_t column) { return share(column, row, 0); });
  } else {
    std::cout << ", of each head the position that does most\n";
    std::vector<size_t> numbers;
    for (size_t head = 0; head < heads; ++head) numbers.push_back(head);
    for (const size_t layer : sweep.layers)
      labels.push_back(std::to_string(layer) + std::string(label_columns - std::to_string(layer).size(), ' '));
    const double none = percent ? 0 : study.corrupted_value;
    print_table("layer          head", labels, numbers, percent, [&](size_t row, size_t column) {
      double most = share(row, 0, column);
      for (size_t p = 1; p < positions; ++p)
        if (std::fabs(share(row, p, column) - none) > std::fabs(most - none)) most = share(row, p, column);
      return most;
    });
  }
}

/// The cells that move the metric most.
void print_strongest(const Study& study, Words& words) {
  struct Cell {
    const Component* component;
    size_t index;
    double value;
  };
  std::vector<Cell> cells;
  for (const Component& component : study.components)
    for (size_t i = 0; i < component.values.size(); ++i)
      if (component.values[i] != study.corrupted_value) cells.push_back({&component, i, component.values[i]});
  const auto moves = [&](const Cell& cell) { return std::fabs(cell.value - study.corrupted_value); };
  constexpr size_t shown = 10;
  const auto end = cells.begin() + static_cast<long>(std::min(shown, cells.size()));
  std::partial_sort(cells.begin(), end, cells.end(), [&](const Cell& a, const Cell& b) {
    return std::tuple(-moves(a), a.component, a.index) < std::tuple(-moves(b), b.component, b.index);
  });
  std::cout << "\nStrongest cells\n";
  for (auto cell = cells.begin(); cell != end; ++cell) {
    const size_t heads = cell->component->heads, positions = study.sweep.positions.size();
    const size_t position = study.sweep.positions[cell->index / heads % positions];
    std::printf("  %-20s layer %3zu, ", hook_info(cell->component->point).name,
                study.sweep.layers[cell->index / heads / positions]);
    if (study.sweep.by_head) std::printf("head %2zu, ", cell->index % heads);
    std::printf("position %s %12.6g\n", position_label(study, position, words).c_str(), cell->value);
  }
  if (cells.empty()) std::cout << "  none: no patch changes anything\n";
}

void print_study(const Study& study, Words& words) {
  std::cout << metric_name(study.metric.kind);
  const size_t tokens = metric_tokens(study.metric.kind);
  if (tokens > 0) std::cout << " of " << quoted(words.name(study.metric.token));
  if (tokens > 1) std::cout << " over " << quoted(words.name(study.metric.other));
  std::printf(" in %s at position %zu: clean %.6g, corrupted %.6g\n", hook_name(study.sweep.observed).c_str(),
              study.sweep.observed_position, study.clean_value, study.corrupted_value);
  std::cout << (study.clean_value != study.corrupted_value
                    ? "Cells: percent of the difference that the patch brings over\n"
                    : "Cells: the metric, which is the same in both runs\n");
  for (const Component& component : study.components) print_component(study, component, words);
  print_strongest(study, words);
}

}  // namespace

int PatchSweepCommand::run() const {
  const PatchSweepCommand& options = *this;
  if (options.out) OutputFile(*options.out, options.force);  // what cannot be written is said before the runs
  const Model model = open_model(options);
  Words words(options, model);
  Study study = read_study(options, model, words);
  options.precision == "fp64" ? measure_all<double>(model, run_options(options), study)
                              : measure_all<float>(model, run_options(options), study);
  const ordered_json json = study_json(options, study, words);
  if (options.out) write_text_file(*options.out, json_text(json) + "\n", options.force);
  if (options.json) std::cout << json_text(json) << '\n';
  else print_study(study, words);
  return 0;
}

std::unique_ptr<Command> make_patch_sweep() { return std::make_unique<PatchSweepCommand>(); }

}  // namespace sinkref::cli
