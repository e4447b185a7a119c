// Text as it is generated must read as the text at the end.

#include "tokenizer/stream_decoder.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <random>

#include "base/json_file.h"
#include "tokenizer/factories.h"
#include "tokenizer/utf8.h"

using namespace sinkref;
namespace fs = std::filesystem;

namespace {

const fs::path source = SINKREF_SOURCE_DIR;

std::unique_ptr<Tokenizer> sentencepiece_file(const fs::path& file) {
  return make_sentencepiece_tokenizer(read_text_file(file), file.string());
}

std::unique_ptr<Tokenizer> bpe_folder(const fs::path& folder) {
  const fs::path file = folder / "tokenizer.json";
  return make_bpe_tokenizer(read_json_file(file), file.string(), read_tokenizer_settings(folder));
}

// Published tokenizers are not part of the project.
fs::path needed(const fs::path& file) {
  if (!fs::exists(file))
    FAIL(file.string() << " is missing; run tools/get_tokenizers.sh models in the source folder");
  return file;
}

std::vector<std::unique_ptr<Tokenizer>> opened_tokenizers() {
  const fs::path own = source / "reference_outputs", published = source / "models/tokenizers";
  std::vector<std::unique_ptr<Tokenizer>> all;
  for (const fs::path& folder : {own / "tiny_tokenizer", own / "tiny_llama3",
                                 needed(published / "smollm2"), needed(published / "llama-3")})
    all.push_back(bpe_folder(folder));
  for (const fs::path& folder : {own / "tiny_sentencepiece", needed(published / "llama-2"),
                                 needed(published / "mistral-v0.1")})
    all.push_back(sentencepiece_file(folder / "tokenizer.model"));
  for (const char* name : {"ggml-vocab-llama-spm.gguf", "ggml-vocab-llama-bpe.gguf"})
    all.push_back(Tokenizer::open(Checkpoint::open(needed(published / "llama.cpp" / name))));
  return all;
}

const std::vector<std::unique_ptr<Tokenizer>>& all_tokenizers() {
  static const auto all = opened_tokenizers();
  return all;
}

/// Ids that a text can go wrong at: blanks, bytes, tokens without text, ids beyond the vocabulary.
std::vector<int> awkward_ids(const Tokenizer& tokenizer) {
  std::vector<int> ids;
  for (int id = 0; static_cast<size_t>(id) < std::min<size_t>(tokenizer.vocab_size(), 300); ++id)
    ids.push_back(id);
  for (const char* text : {" ", "  ", "\n", "é", "漢字", "🙂", "\xEF\xBF\xBD", "the", " the"})
    for (const int id : tokenizer.encode(text, BosPolicy::off)) ids.push_back(id);
  for (const std::optional<int> id : {tokenizer.bos_id(), tokenizer.eos_id()})
    if (id) ids.push_back(*id);
  ids.push_back(static_cast<int>(tokenizer.vocab_size()));
  return ids;
}

/// Whether a place of the text is within one of its characters. Bytes that are none stand alone.
bool is_inside_a_character(std::string_view text, size_t place) {
  for (size_t at = 0; at < place;) {
    const bool whole = valid_utf8_prefix(text.substr(at, 4)) > 0;
    at += whole ? utf8_length(static_cast<unsigned char>(text[at])) : 1;
    if (at > place) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("stream decoder: its parts are the text of all ids, whatever the ids") {
  std::mt19937 generator(1);
  for (const auto& tokenizer : all_tokenizers()) {
    INFO(tokenizer->description());
    const std::vector<int> awkward = awkward_ids(*tokenizer);
    size_t waited = 0;
    for (size_t round = 0; round < 300; ++round) {
      StreamDecoder decoder(*tokenizer);
      std::vector<int> ids;
      std::string told;
      std::vector<size_t> cuts;
      const size_t length = 1 + generator() % 24;
      while (ids.size() < length) {
        const bool any = generator() % 4 == 0;
        ids.push_back(any ? static_cast<int>(generator() % tokenizer->vocab_size())
                          : awkward[generator() % awkward.size()]);
        told += decoder.push(ids.back());
        cuts.push_back(told.size());
        const std::string so_far = text_of(*tokenizer, ids);
        REQUIRE(so_far.starts_with(told));
        REQUIRE(so_far.size() - told.size() <= 9);  // three replacement characters wait at most
        waited += so_far.size() > told.size();
      }
      told += decoder.finish();
      INFO(round);
      REQUIRE(told == text_of(*tokenizer, ids));
      for (const size_t cut : cuts) REQUIRE_FALSE(is_inside_a_character(told, cut));
    }
    CHECK(waited > 0);
  }
}

TEST_CASE("stream decoder: an encoded text comes back, characters whole") {
  const std::string text = "The café – 漢字, 🙂🙂 and  two blanks\n\tno more";
  for (const auto& tokenizer : all_tokenizers()) {
    StreamDecoder decoder(*tokenizer);
    std::string told;
    for (const int id : tokenizer->encode(text, BosPolicy::off)) {
      const std::string part = decoder.push(id);
      INFO(tokenizer->description());
      CHECK(is_utf8(part));
      told += part;
    }
    CHECK(told + decoder.finish() == text);
  }
}
