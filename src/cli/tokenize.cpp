// tokenize: what a text is to a model.

#include <iostream>

#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "sinkref/error.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

struct TokenizeCommand : TextCommand {
  OptionTable table() override { return joined({prompt_rows(), id_rows(), bos_row()}); }
  int run() const override;
};

int TokenizeCommand::run() const {
  const Checkpoint checkpoint = Checkpoint::open(model);
  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(checkpoint);
  std::vector<int> ids;
  if (prompt && prompt->empty()) {
    ids = tokenizer->encode("", bos);  // what a model sees of no text is a fair question
  } else {
    ids = read_one_sequence(*this, checkpoint);
  }
  for (int id : ids)
    if (id < 0 || static_cast<size_t>(id) >= tokenizer->vocab_size())
      refuse(model,
             "token id " + std::to_string(id) +
                 " is not in the tokenizer's vocabulary, expected 0 to " +
                 std::to_string(tokenizer->vocab_size() - 1),
             "give ids of this model");
  ordered_json pieces = ordered_json::array();
  for (int id : ids) pieces.push_back(tokenizer->piece(id));
  if (json) {
    std::cout << json_text({{"tokens", ids},
                            {"pieces", pieces},
                            {"text", tokenizer->decode(ids)},
                            {"tokenizer", tokenizer->description()}})
              << '\n';
    return 0;
  }
  for (size_t i = 0; i < ids.size(); ++i)
    std::cout << ids[i] << '\t' << quoted(tokenizer->piece(ids[i])) << '\n';
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_tokenize() { return std::make_unique<TokenizeCommand>(); }

}  // namespace sinkref::cli
