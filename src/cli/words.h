#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/shared_options.h"
#include "sinkref/model.h"

namespace sinkref::cli {

/// The texts of a command that has several: one tokenizer for all, opened when it is first needed.
class Words {
 public:
  Words(const TextCommand& options, const Model& model) : options_(options), model_(model) {}

  /// The ids of `text`, or `ids` as they are given: exactly one of them. `option` is the text's; that of the ids has
  /// "-tokens" behind it.
  std::vector<int> prompt(const std::optional<std::string>& text, const std::optional<std::string>& ids,
                          const std::string& option);
  /// The id of a text that is one token, or `id`; none without both. The option of the id has "-token" behind it.
  std::optional<size_t> token(const std::optional<std::string>& text, std::optional<size_t> id,
                              const std::string& option);
  /// A token as text; of a model without a tokenizer, its number.
  std::string name(size_t id);

 private:
  const Tokenizer& tokenizer();

  const TextCommand& options_;
  const Model& model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  bool has_none_ = false, notes_said_ = false;
};

/// The name between quotes, cut or filled up to so many columns.
std::string in_columns(const std::string& name, size_t columns);

}  // namespace sinkref::cli
