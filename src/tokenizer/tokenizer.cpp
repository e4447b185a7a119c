#include "sinkref/tokenizer.h"

#include "base/json_file.h"
#include "checkpoint/metadata.h"
#include "checkpoint/readers.h"
#include "sinkref/error.h"
#include "tokenizer/factories.h"
#include "tokenizer/utf8.h"

namespace sinkref {

namespace {

namespace fs = std::filesystem;

// Meta's original Llama-3 file: lines of a base64 token and its rank.
bool is_tiktoken(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), size_t(200)));
  const size_t space = line.find(' ');
  return space != line.npos && space > 0 && space + 1 < line.size() &&
         line.find_first_not_of(
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") == space &&
         line.find_first_not_of("0123456789\r", space + 1) == line.npos;
}

// The rows of the embedding, where config.json says.
std::optional<size_t> rows_of(const Checkpoint& checkpoint) {
  const nlohmann::json& config = checkpoint.metadata().config;
  if (!config.is_object() || !config.contains("vocab_size")) return std::nullopt;
  const nlohmann::json& size = config["vocab_size"];
  if (!size.is_number_unsigned()) return std::nullopt;
  return size.get<size_t>();
}

std::unique_ptr<Tokenizer> open_folder(const fs::path& folder, std::string& name) {
  const fs::path model = folder / "tokenizer.model", json = folder / "tokenizer.json";
  const bool has_json = fs::exists(json);
  name = json.string();
  if (fs::exists(model)) {
    const std::string bytes = read_text_file(model);
    if (!is_tiktoken(bytes)) {
      name = model.string();
      return make_sentencepiece_tokenizer(bytes, name, read_tokenizer_settings(folder));
    }
    if (!has_json)
      refuse(model.string(), "is in tiktoken's format, expected sentencepiece's",
             "put the tokenizer.json of the Hugging Face model beside it");
  }
  if (!has_json)
    refuse(folder.string(), "holds no tokenizer, expected tokenizer.model or tokenizer.json",
           "copy one from the model's page or give token ids");
  return make_bpe_tokenizer(read_json_file(json), name, read_tokenizer_settings(folder));
}

}  // namespace

void refuse_token(const std::string& name, int id, size_t vocab_size) {
  refuse(name,
         "token id " + std::to_string(id) + " is not in the vocabulary, expected 0 to " +
             std::to_string(vocab_size - 1),
         "sinkref tokenize shows the ids of a text");
}

std::unique_ptr<Tokenizer> Tokenizer::open(const Checkpoint& checkpoint) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (checkpoint.is_gguf()) {
    tokenizer =
        make_tokenizer_from_gguf(checkpoint.whole_metadata()->gguf, checkpoint.path().string());
  } else {
    std::string name;
    tokenizer = open_folder(checkpoint.path(), name);
    tokenizer->rows_ = rows_of(checkpoint);
    tokenizer->name_ = name;
    // Added tokens may go beyond: fill-in tokens that the model was not trained with do.
    if (tokenizer->rows_ && tokenizer->first_added_id() > *tokenizer->rows_)
      refuse(name,
             "has " + std::to_string(tokenizer->first_added_id()) + " tokens, expected at most " +
                 std::to_string(*tokenizer->rows_) + ", the vocab_size in " +
                 checkpoint.config_file().string(),
             "take both files from one model");
  }
  return_freed_memory();  // that of the file's text
  return tokenizer;
}

void Tokenizer::check_rows(std::span<const int> ids) const {
  if (!rows_) return;
  for (int id : ids)
    if (static_cast<size_t>(id) >= *rows_)
      refuse(name_,
             "the text holds token " + quoted(piece(id)) + " of id " + std::to_string(id) +
                 ", expected one of the model's " + std::to_string(*rows_),
             "leave it out of the text, or take the tokenizer from the model's own page");
}

std::vector<int> Tokenizer::encode(std::string_view text, BosPolicy bos) const {
  const size_t valid = valid_utf8_prefix(text);
  if (valid != text.size())
    refuse("text to tokenize",
           "the byte at offset " + std::to_string(valid) + " is " +
               quoted(std::string(text.substr(valid, 1))) + ", expected UTF-8",
           "convert the text");
  std::vector<int> ids = encode_without_bos(text);
  check_rows(ids);
  if (bos == BosPolicy::off || (bos == BosPolicy::automatic && !adds_bos())) return ids;
  if (!bos_id())
    refuse("--bos on", "expected a tokenizer with a BOS token, this one has none", "use --bos off");
  ids.insert(ids.begin(), *bos_id());
  check_rows({ids.data(), 1});
  return ids;
}

}  // namespace sinkref
