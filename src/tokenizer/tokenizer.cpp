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

// The embedding must have a row for every id; rows beyond the vocabulary are usual padding.
void check_vocab_size(const Tokenizer& tokenizer, const Checkpoint& checkpoint,
                      const std::string& name) {
  if (!checkpoint.metadata().config.is_object()) return;
  const auto size = checkpoint.metadata().config.find("vocab_size");
  if (size == checkpoint.metadata().config.end() || !size->is_number_unsigned()) return;
  if (tokenizer.vocab_size() > size->get<uint64_t>())
    refuse(name,
           "has " + std::to_string(tokenizer.vocab_size()) + " tokens, expected at most " +
               size->dump() + ", the vocab_size in " + checkpoint.config_file().string(),
           "take both files from one model");
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
    check_vocab_size(*tokenizer, checkpoint, name);
  }
  return_freed_memory();  // that of the file's text
  return tokenizer;
}

std::vector<int> Tokenizer::encode(std::string_view text, BosPolicy bos) const {
  const size_t valid = valid_utf8_prefix(text);
  if (valid != text.size())
    refuse("text to tokenize",
           "the byte at offset " + std::to_string(valid) + " is " +
               quoted(std::string(text.substr(valid, 1))) + ", expected UTF-8",
           "convert the text");
  std::vector<int> ids = encode_without_bos(text);
  if (bos == BosPolicy::off || (bos == BosPolicy::automatic && !adds_bos())) return ids;
  if (!bos_id())
    refuse("--bos on", "expected a tokenizer with a BOS token, this one has none", "use --bos off");
  ids.insert(ids.begin(), *bos_id());
  return ids;
}

}  // namespace sinkref
