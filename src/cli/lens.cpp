// lens: the logit lens, layer by layer.

#include "sinkref/lens.h"

#include <cstdio>
#include <iostream>

#include "base/progress.h"
#include "cli/commands.h"
#include "cli/ids.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/words.h"
#include "sinkref/metric.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

struct LensCommand : RunningCommand {
  std::string layers = "all", positions = "-1";
  std::optional<std::string> answer;
  std::optional<size_t> answer_token;
  size_t top = 5;

  OptionTable table() override {
    return joined({prompt_rows(), id_rows(), bos_row(),
                   {{"layers", text("LIST", layers), "the layers to show, as 0,5,-1; or all"},
                    {"positions", text("LIST", positions), "the positions to show, as 0,5,-1; or all"},
                    {"top", number(top, 1, 1000), "how many of the most probable tokens"},
                    {"answer", text("TEXT", answer),
                     "a token whose probability and rank are shown, with the blank before it"},
                    {"answer-token", number(answer_token, 0), "the same as an id"}},
                   softmax_row(), precision_row(), kernel_row(), chunk_row()});
  }
  int run() const override;
};

struct Guess {
  size_t token;
  double probability;
};

/// What the lens shows of one layer and position.
struct Cell {
  size_t layer, position;
  std::vector<Guess> top;
  std::optional<Guess> answer;
  size_t rank = 0;  ///< of the answer, from 1 on
};

template <class T>
Cell read_cell(const Kernels<T>& kernels, std::span<const T> logits, size_t count, std::optional<size_t> answer) {
  const auto guess = [&](size_t token) {
    return Guess{token, measure<T>({Metric::Kind::probability, token, 0}, kernels, logits)};
  };
  Cell cell{};
  for (const size_t token : largest(logits, count)) cell.top.push_back(guess(token));
  if (answer) {
    cell.answer = guess(*answer);
    cell.rank = rank_of(logits, *answer);
  }
  return cell;
}

template <class T>
std::vector<Cell> read_cells(const LensCommand& options, const Model& model, const std::vector<int>& tokens,
                             const std::vector<size_t>& positions, std::optional<size_t> answer) {
  const Kernels<T>& kernels = find_kernels<T>(options.kernel);
  RunOptions run = run_options(options);
  Progress progress = Progress::to_stderr();
  progress.plan(1);
  progress.step("the lens", 1);
  run.progress = [&](size_t done, size_t all) {
    progress.share(static_cast<double>(done) / static_cast<double>(all));
  };
  std::vector<Cell> cells;
  lens<T>(model, run, tokens, positions, [&](size_t layer, const Matrix<T>& logits) {
    for (size_t i = 0; i < positions.size(); ++i) {
      cells.push_back(read_cell<T>(kernels, {logits.row(i), logits.cols}, options.top, answer));
      cells.back().layer = layer;
      cells.back().position = positions[i];
    }
  });
  return cells;
}

ordered_json guess_json(const Guess& guess, Words& words) {
  return {{"token", guess.token}, {"text", words.name(guess.token)}, {"probability", guess.probability}};
}

void print_cells(const std::vector<Cell>& cells, const std::vector<int>& tokens, const std::vector<size_t>& positions,
                 Words& words) {
  for (const size_t position : positions) {
    std::cout << (position == positions[0] ? "" : "\n") << "After position " << position << ", "
              << quoted(words.name(static_cast<size_t>(tokens[position]))) << '\n';
    const bool follows = cells[0].answer.has_value();
    std::cout << "layer" << (follows ? "   " + in_columns(words.name(cells[0].answer->token), 14) + " rank" : "")
              << "   most probable\n";
    for (const Cell& cell : cells) {
      if (cell.position != position) continue;
      std::printf("%5zu", cell.layer);
      if (follows) std::printf("   %14.6g %4zu", cell.answer->probability, cell.rank);
      for (const Guess& guess : cell.top)
        std::printf("   %s %.3f", in_columns(words.name(guess.token), 12).c_str(), guess.probability);
      std::cout << '\n';
    }
  }
}

}  // namespace

int LensCommand::run() const {
  const LensCommand& options = *this;
  const Model model = open_model(options);
  Words words(options, model);
  const std::vector<int> tokens = read_one_sequence(options, model.checkpoint());
  check_tokens(model, tokens);
  const std::optional<size_t> answer = words.token(options.answer, options.answer_token, "answer");
  const std::vector<size_t> at = parse_places(options.positions, tokens.size(), "--positions", "position");
  const std::vector<size_t> kept = parse_places(options.layers, model.config().layers, "--layers", "layer");
  std::vector<Cell> cells = options.precision == "fp64" ? read_cells<double>(options, model, tokens, at, answer)
                                                        : read_cells<float>(options, model, tokens, at, answer);
  std::erase_if(cells, [&](const Cell& cell) { return std::find(kept.begin(), kept.end(), cell.layer) == kept.end(); });
  if (!options.json) {
    print_cells(cells, tokens, at, words);
    return 0;
  }
  ordered_json list = ordered_json::array();
  for (const Cell& cell : cells) {
    ordered_json top = ordered_json::array();
    for (const Guess& guess : cell.top) top.push_back(guess_json(guess, words));
    list.push_back({{"layer", cell.layer}, {"position", cell.position}, {"top", top}});
    if (!cell.answer) continue;
    list.back()["answer"] = guess_json(*cell.answer, words);
    list.back()["answer"]["rank"] = cell.rank;
  }
  ordered_json texts = ordered_json::array();
  for (const int id : tokens) texts.push_back(words.name(static_cast<size_t>(id)));
  std::cout << json_text({{"model", last_part(options.model)}, {"tokens", tokens}, {"texts", texts}, {"cells", list}})
            << '\n';
  return 0;
}

std::unique_ptr<Command> make_lens() { return std::make_unique<LensCommand>(); }

}  // namespace sinkref::cli
