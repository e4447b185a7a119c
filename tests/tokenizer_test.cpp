#include <catch2/catch.hpp>
#include <algorithm>
#include <ctime>
#include <limits>

#include "base/json_file.h"
#include "checkpoint_builder.h"
#include "sinkref/error.h"
#include "tokenizer/factories.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/sentencepiece_model.h"

namespace sinkref {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path source = SINKREF_SOURCE_DIR;
const fs::path references = source / "reference_outputs" / "tokenizers";
const fs::path published = source / "models" / "tokenizers";

// Published tokenizers are not part of the project.
fs::path needed(const fs::path& file) {
  if (!fs::exists(file))
    FAIL(file.string() << " is missing; run tools/get_tokenizers.sh models in the source folder");
  return file;
}

std::unique_ptr<Tokenizer> sentencepiece_file(const fs::path& file) {
  return make_sentencepiece_tokenizer(read_text_file(needed(file)), file.string());
}

std::unique_ptr<Tokenizer> bpe_folder(const fs::path& folder) {
  const fs::path file = needed(folder / "tokenizer.json");
  return make_bpe_tokenizer(read_json_file(file), file.string(), read_tokenizer_settings(folder));
}

std::unique_ptr<Tokenizer> gguf_file(const fs::path& file) {
  return Tokenizer::open(Checkpoint::open(needed(file)));
}

std::unique_ptr<Tokenizer> tiny_bpe() {
  return bpe_folder(source / "reference_outputs" / "tiny_tokenizer");
}

std::unique_ptr<Tokenizer> tiny_sentencepiece() {
  return sentencepiece_file(source / "reference_outputs" / "tiny_sentencepiece" /
                            "tokenizer.model");
}

const std::vector<std::string>& strings() {
  static const auto all =
      read_json_file(references / "strings.json").get<std::vector<std::string>>();
  return all;
}

std::vector<int> ids_of(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, BosPolicy::off);
}

// Every text has the reference's ids, and decoding gives the text or what the reference makes of
// it.
void compare(const Tokenizer& tokenizer, const std::string& reference_name) {
  const json reference = read_json_file(references / (reference_name + ".json"));
  REQUIRE(reference["ids"].size() == strings().size());
  REQUIRE(strings().size() >= 300);
  for (size_t i = 0; i < strings().size(); ++i) {
    INFO(reference_name << ", text " << i << ": " << quoted(strings()[i]));
    const auto expected = reference["ids"][i].get<std::vector<int>>();
    CHECK(ids_of(tokenizer, strings()[i]) == expected);
    const json decoded = reference["decoded"].value(std::to_string(i), json(strings()[i]));
    if (!decoded.is_null()) CHECK(tokenizer.decode(expected) == decoded.get<std::string>());
  }
}

void compare_with_each_other(const Tokenizer& a, const Tokenizer& b) {
  CHECK(a.vocab_size() == b.vocab_size());
  CHECK(a.bos_id() == b.bos_id());
  CHECK(a.adds_bos() == b.adds_bos());
  for (const std::string& text : strings()) {
    INFO(quoted(text));
    CHECK(a.encode(text) == b.encode(text));
  }
}

// tokenizer.ggml.* as llama.cpp's converter writes it for a tokenizer.model.
std::map<std::string, json> gguf_metadata_of(const fs::path& file) {
  const auto model = check_sentencepiece_model(read_text_file(needed(file)), file.string());
  std::map<std::string, json> metadata = {{"tokenizer.ggml.model", "llama"},
                                          {"tokenizer.ggml.bos_token_id", 1},
                                          {"tokenizer.ggml.eos_token_id", 2},
                                          {"tokenizer.ggml.unknown_token_id", 0},
                                          {"tokenizer.ggml.remove_extra_whitespaces",
                                           model.remove_extra_whitespaces}};
  for (const Piece& piece : model.pieces) {
    metadata["tokenizer.ggml.tokens"].push_back(piece.text);
    metadata["tokenizer.ggml.scores"].push_back(piece.score);
    metadata["tokenizer.ggml.token_type"].push_back(static_cast<int>(piece.type));
  }
  return metadata;
}

// llama.cpp's own test data: texts between marker lines, and a line of ids for each.
void compare_with_llama_cpp(const std::string& vocabulary) {
  const fs::path file = needed(published / "llama.cpp" / (vocabulary + ".gguf"));
  const auto tokenizer = gguf_file(file);
  const std::string texts = read_text_file(file.string() + ".inp");
  std::istringstream ids(read_text_file(file.string() + ".out"));
  const std::string marker = "\n__ggml_vocab_test__\n";
  std::string line;
  int compared = 0;
  for (size_t at = 0, end; (end = texts.find(marker, at)) != std::string::npos;
       at = end + marker.size()) {
    REQUIRE(std::getline(ids, line));
    std::istringstream numbers(line);
    const std::vector<int> expected{std::istream_iterator<int>(numbers), {}};
    const std::string text = texts.substr(at, end - at);
    INFO(vocabulary << ": " << quoted(text));
    CHECK(ids_of(*tokenizer, text) == expected);
    ++compared;
  }
  CHECK(compared > 40);
}

/// Processor time, which other programs do not change; the least of three.
double time_to_encode(const Tokenizer& tokenizer, const std::string& text) {
  std::clock_t least = std::numeric_limits<std::clock_t>::max();
  for (int i = 0; i < 3; ++i) {
    const std::clock_t start = std::clock();
    const auto ids = ids_of(tokenizer, text);
    least = std::min(least, std::clock() - start);
    CHECK(tokenizer.decode(ids) == text);
  }
  return static_cast<double>(least);
}

}  // namespace

TEST_CASE("tokenizer: LLaMA-2 gives the ids and texts of sentencepiece") {
  compare(*sentencepiece_file(published / "llama-2" / "tokenizer.model"), "llama-2");
}

TEST_CASE("tokenizer: Mistral gives the ids and texts of sentencepiece") {
  compare(*sentencepiece_file(published / "mistral-v0.1" / "tokenizer.model"), "mistral-v0.1");
}

TEST_CASE("tokenizer: Llama-3 gives the ids and texts of tiktoken") {
  compare(*bpe_folder(published / "llama-3"), "llama-3");
}

TEST_CASE("tokenizer: SmolLM2's tokenizer.json gives the ids of the tokenizers package") {
  compare(*bpe_folder(published / "smollm2"), "smollm2");
}

TEST_CASE("tokenizer: SmolLM2's GGUF file gives the ids of the tokenizers package") {
  compare(*gguf_file(source / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"), "smollm2");
}

TEST_CASE("tokenizer: the tiny byte-level BPE gives the ids of the tokenizers package") {
  compare(*tiny_bpe(), "tiny-bpe");
}

TEST_CASE("tokenizer: the tiny sentencepiece model gives the ids of sentencepiece") {
  compare(*tiny_sentencepiece(), "tiny-sentencepiece");
}

TEST_CASE("tokenizer: llama.cpp's vocabularies give the ids that llama.cpp gives") {
  compare_with_llama_cpp("ggml-vocab-llama-spm");
  compare_with_llama_cpp("ggml-vocab-llama-bpe");
}

TEST_CASE("tokenizer: GGUF metadata and tokenizer.model give the same ids") {
  for (const fs::path& file :
       {published / "llama-2" / "tokenizer.model", published / "mistral-v0.1" / "tokenizer.model",
        source / "reference_outputs/tiny_sentencepiece/tokenizer.model"})
    compare_with_each_other(*sentencepiece_file(file),
                            *make_tokenizer_from_gguf(gguf_metadata_of(file), "model.gguf"));
}

TEST_CASE("tokenizer: Llama-3 from GGUF equals tokenizer.json") {
  compare(*gguf_file(published / "llama.cpp" / "ggml-vocab-llama-bpe.gguf"), "llama-3");
}

TEST_CASE("tokenizer: BOS comes first as the file says, unless the caller decides") {
  const auto adds = tiny_sentencepiece();
  CHECK(adds->adds_bos());
  CHECK(adds->encode("").size() == 1);
  CHECK(adds->encode("").front() == adds->bos_id());
  CHECK(adds->encode("", BosPolicy::off).empty());
  const auto bpe = tiny_bpe();
  CHECK(bpe->adds_bos());
  CHECK(bpe->encode("").front() == bpe->bos_id());

  TokenizerSettings settings;
  settings.add_bos = false;
  const fs::path file = source / "reference_outputs/tiny_sentencepiece/tokenizer.model";
  const auto without = make_sentencepiece_tokenizer(read_text_file(file), "t", settings);
  CHECK(without->encode("").empty());
  CHECK(without->encode("", BosPolicy::on) == std::vector<int>{1});

  const auto smollm2 = bpe_folder(published / "smollm2");
  CHECK_FALSE(smollm2->adds_bos());
  CHECK(smollm2->encode("", BosPolicy::on) == std::vector<int>{1});
}

TEST_CASE("tokenizer: decoding leaves out the BOS that the tokenizer added") {
  CHECK(tiny_bpe()->decode(tiny_bpe()->encode("river<|bos|>")) == "river<|bos|>");
  CHECK(tiny_sentencepiece()->decode(tiny_sentencepiece()->encode(" the river")) == " the river");
}

TEST_CASE("tokenizer: tokens decoded one by one give the same bytes as all at once") {
  const auto tokenizer = tiny_bpe();
  std::string bytes;
  for (int id : ids_of(*tokenizer, "the 好 😀 river")) bytes += tokenizer->decode({{id}});
  CHECK(bytes == "the 好 😀 river");
}

TEST_CASE("tokenizer: text that is not UTF-8 is refused with the place of the bad byte") {
  for (const auto& tokenizer : {tiny_bpe(), tiny_sentencepiece()}) {
    for (const char* bad : {"ab\xff", "ab\x80", "ab\xc3", "ab\xc0\x80", "ab\xed\xa0\x80",
                            "ab\xf4\x90\x80\x80", "ab\xe2\x82", "ab\xf0\x80\x80\x80"}) {
      INFO(quoted(bad));
      CHECK_THROWS_WITH(tokenizer->encode(bad), Catch::Contains("offset 2 is"));
    }
  }
}

TEST_CASE("tokenizer: an id outside the vocabulary is an error") {
  for (const auto& tokenizer : {tiny_bpe(), tiny_sentencepiece()}) {
    const int size = static_cast<int>(tokenizer->vocab_size());
    for (int id : {-1, size, 2147483647}) {
      CHECK_THROWS_AS(tokenizer->decode({{id}}), InputError);
      CHECK_THROWS_AS(tokenizer->piece(id), InputError);
    }
    CHECK_NOTHROW(tokenizer->piece(size - 1));
  }
}

TEST_CASE("tokenizer: the time for a run of letters, of words or of spaces grows with its length") {
  const auto run = [](const std::string& part, size_t times) {
    std::string text;
    for (size_t i = 0; i < times; ++i) text += part;
    return text;
  };
  for (const auto& tokenizer : {tiny_bpe(), tiny_sentencepiece()})
    for (const char* part : {"a", " the", " "}) {
      // 16 times as long: 16 times the time, and 256 times if every merge looked at all the text.
      const double shorter = time_to_encode(*tokenizer, run(part, 4000));
      CHECK(time_to_encode(*tokenizer, run(part, 64000)) < 64 * shorter);
    }
}

namespace {

// A folder with the tiny sentencepiece model and a tokenizer_config.json.
std::vector<int> ids_in_folder(const json& config, const std::string& text,
                               BosPolicy bos = BosPolicy::off) {
  const TempDir folder;
  folder.write("config.json", "{}");
  folder.write("tokenizer_config.json", config.dump());
  fs::copy(source / "reference_outputs/tiny_sentencepiece/tokenizer.model", folder.path());
  return make_sentencepiece_tokenizer(read_text_file(folder.path() / "tokenizer.model"), "t",
                                      read_tokenizer_settings(folder.path()))
      ->encode(text, bos);
}

json chat_config(bool legacy, bool strip) {
  const json token = {{"content", "<|im_start|>"}, {"lstrip", strip}, {"rstrip", strip},
                      {"single_word", false},      {"special", true}, {"normalized", false}};
  return {{"legacy", legacy}, {"added_tokens_decoder", {{"400", token}}}};
}

}  // namespace

TEST_CASE("tokenizer: a folder's added tokens are cut out of the text before sentencepiece") {
  const auto plain = tiny_sentencepiece();
  auto joined = [&](std::string_view before, std::string_view after) {
    auto ids = ids_of(*plain, before);
    ids.push_back(400);
    const auto rest = ids_of(*plain, after);
    ids.insert(ids.end(), rest.begin(), rest.end());
    return ids;
  };
  CHECK(ids_in_folder(chat_config(true, false), "a<|im_start|>the") == joined("a", "the"));
  CHECK(ids_in_folder(chat_config(true, false), "a <|im_start|> the") == joined("a ", " the"));
  CHECK(ids_in_folder(chat_config(true, true), "a \n<|im_start|>\t the") == joined("a", "the"));
  // Not legacy: no "▁" is put before the text after an added token.
  CHECK(ids_in_folder(chat_config(false, false), "a<|im_start|> the") == joined("a", "the"));
}

TEST_CASE("tokenizer: tokenizer_config.json decides whether sentencepiece text gets BOS") {
  CHECK(ids_in_folder({{"add_bos_token", false}}, "", BosPolicy::automatic).empty());
  CHECK(ids_in_folder({{"add_bos_token", true}}, "", BosPolicy::automatic).size() == 1);
  CHECK(ids_in_folder(json::object(), "", BosPolicy::automatic).size() == 1);
  CHECK(ids_in_folder({{"bos_token", "</s>"}}, "", BosPolicy::automatic) == std::vector<int>{2});
}

TEST_CASE("tokenizer: a GGUF vocabulary's chat tokens are recognised in the text") {
  auto metadata = gguf_metadata_of(source / "reference_outputs/tiny_sentencepiece/tokenizer.model");
  for (int type : {3, 4}) {
    metadata["tokenizer.ggml.tokens"].push_back("<|chat" + std::to_string(type) + "|>");
    metadata["tokenizer.ggml.scores"].push_back(-1000.0);
    metadata["tokenizer.ggml.token_type"].push_back(type);
  }
  const auto tokenizer = make_tokenizer_from_gguf(metadata, "model.gguf");
  const std::vector<int> ids = tokenizer->encode("<|chat4|><|chat3|>", BosPolicy::off);
  CHECK(ids == std::vector<int>{401, 400});
  CHECK(tokenizer->decode(ids) == "<|chat4|><|chat3|>");
  CHECK(ids_of(*tokenizer, "<s>") == ids_of(*tiny_sentencepiece(), "<s>"));
}

TEST_CASE("tokenizer: GGUF's pre decides how digits are cut") {
  std::map<std::string, json> metadata = {{"tokenizer.ggml.model", "gpt2"},
                                          {"tokenizer.ggml.tokens", {"1", "11", "1111", "111"}},
                                          {"tokenizer.ggml.token_type", {1, 1, 1, 1}},
                                          {"tokenizer.ggml.merges", {"1 1", "11 11", "11 1"}},
                                          {"tokenizer.ggml.bos_token_id", 0}};
  auto ids = [&](const char* pre) {
    metadata["tokenizer.ggml.pre"] = pre;
    return ids_of(*make_tokenizer_from_gguf(metadata, "model.gguf"), "1111");
  };
  CHECK(ids("smollm") == std::vector<int>{0, 0, 0, 0});
  CHECK(ids("gpt-2") == std::vector<int>{2});
  CHECK(ids("llama-bpe") == std::vector<int>{3, 0});
}

TEST_CASE("tokenizer: GGUF's add_space_prefix and add_bos_token are obeyed") {
  auto metadata = gguf_metadata_of(source / "reference_outputs/tiny_sentencepiece/tokenizer.model");
  metadata["tokenizer.ggml.add_space_prefix"] = false;
  metadata["tokenizer.ggml.add_bos_token"] = false;
  const auto tokenizer = make_tokenizer_from_gguf(metadata, "model.gguf");
  CHECK(tokenizer->encode(" the") == ids_of(*tiny_sentencepiece(), "the"));
  CHECK(tokenizer->decode(tokenizer->encode(" the")) == " the");
}

TEST_CASE("tokenizer: open prefers tokenizer.model, and tokenizer.json to tiktoken's format") {
  const TempDir folder;
  folder.write("config.json", "{}");
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
    fs::copy(source / "reference_outputs/tiny_tokenizer" / file, folder.path());
  auto open = [&] { return Tokenizer::open(Checkpoint::open(folder.path()))->description(); };
  CHECK(open() == "byte-level BPE");
  folder.write("tokenizer.model", "IQ== 0\nIg== 1\n");
  CHECK(open() == "byte-level BPE");
  fs::remove(folder.path() / "tokenizer_config.json");
  fs::copy(source / "reference_outputs/tiny_sentencepiece/tokenizer.model", folder.path(),
           fs::copy_options::overwrite_existing);
  fs::remove(folder.path() / "tokenizer.json");
  CHECK(open() == "sentencepiece BPE");
}

namespace {

// A byte-level BPE over "a", "b", " " and what the test adds.
json small_bpe() {
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  return {{"added_tokens", json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"Ġ", 2}, {"ab", 3}, {"Ġa", 4}, {"aba", 5}, {"Ġab", 6}}},
            {"merges", {"a b", "Ġ a"}}}}};
}

std::vector<int> small_ids(const json& tokenizer, const std::string& text) {
  return ids_of(*make_bpe_tokenizer(tokenizer, "tokenizer.json"), text);
}

}  // namespace

TEST_CASE("tokenizer: merges apply by rank, then from the left") {
  auto tokenizer = small_bpe();
  CHECK(small_ids(tokenizer, " ab") == std::vector<int>{2, 3});
  tokenizer["model"]["merges"] = {"Ġ a", "a b"};
  CHECK(small_ids(tokenizer, " ab") == std::vector<int>{4, 1});
  tokenizer["model"]["vocab"]["aa"] = 7;
  tokenizer["model"]["merges"] = {"a a"};
  CHECK(small_ids(tokenizer, "aaa") == std::vector<int>{7, 0});
}

TEST_CASE("tokenizer: merges may be strings or pairs") {
  auto tokenizer = small_bpe();
  tokenizer["model"]["merges"] = json::parse(R"([["a", "b"], ["Ġ", "a"]])");
  CHECK(small_ids(tokenizer, " ab") == std::vector<int>{2, 3});
}

TEST_CASE("tokenizer: ignore_merges takes a whole piece that is a token, else merges decide") {
  auto tokenizer = small_bpe();
  CHECK(small_ids(tokenizer, "aba") == std::vector<int>{3, 0});
  tokenizer["model"]["ignore_merges"] = true;
  CHECK(small_ids(tokenizer, "aba") == std::vector<int>{5});
  CHECK(small_ids(tokenizer, "abab") == std::vector<int>{3, 3});
}

TEST_CASE("tokenizer: added tokens are found leftmost first, then longest") {
  auto tokenizer = small_bpe();
  tokenizer["added_tokens"] = {
      {{"id", 10}, {"content", "<x>"}},
      {{"id", 11}, {"content", "<x><y>"}},
      {{"id", 12}, {"content", "<y>"}, {"lstrip", true}, {"rstrip", true}}};
  CHECK(small_ids(tokenizer, "<x><y>") == std::vector<int>{8});
  CHECK(small_ids(tokenizer, "<x>a<y>") == std::vector<int>{7, 0, 9});
  CHECK(small_ids(tokenizer, "a  <y>\n b") == std::vector<int>{0, 9, 1});
  CHECK(small_ids(tokenizer, " <y> <y> ") == std::vector<int>{9, 9});
}

TEST_CASE("tokenizer: Digits cuts between digits if they are individual, else around them") {
  auto tokenizer = small_bpe();
  tokenizer["model"]["vocab"] = {{"1", 0}, {"11", 1}, {"a", 2}, {"a1", 3}};
  tokenizer["model"]["merges"] = {"a 1", "1 1"};
  json digits = {{"type", "Digits"}, {"individual_digits", true}};
  auto ids = [&] {
    tokenizer["pre_tokenizer"] = {{"type", "Sequence"},
                                  {"pretokenizers", {digits, small_bpe()["pre_tokenizer"]}}};
    return small_ids(tokenizer, "a11");
  };
  CHECK(ids() == std::vector<int>{2, 0, 0});
  digits["individual_digits"] = false;
  CHECK(ids() == std::vector<int>{2, 1});
}

TEST_CASE("tokenizer: white space in a pattern is Unicode's, and an empty match only cuts") {
  auto pieces = [](const char* pattern, std::string_view text) {
    PreTokenizer pre_tokenizer;
    pre_tokenizer.add(pattern, "test");
    return pre_tokenizer.split(text);
  };
  using Pieces = std::vector<std::string_view>;
  CHECK(pieces("\\s+", "a \u0085\u3000b") == Pieces{"a", " \u0085\u3000", "b"});
  CHECK(pieces("\\s+", "a\u180eb") == Pieces{"a\u180eb"});  // not since Unicode 6.3
  CHECK(pieces("\\S+", "a\u180eb c") == Pieces{"a\u180eb", " ", "c"});
  CHECK(pieces("\\\\s", "a\\sb") == Pieces{"a", "\\s", "b"});  // an escaped backslash and "s"
  CHECK(pieces("(?=é)", "aéé") == Pieces{"a", "é", "é"});
}

TEST_CASE("tokenizer: bytes without a token are left out or unknown, as the file says") {
  auto tokenizer = small_bpe();
  CHECK(small_ids(tokenizer, "azb") == std::vector<int>{3});
  tokenizer["model"]["vocab"]["<?>"] = 7;
  tokenizer["model"]["unk_token"] = "<?>";
  CHECK(small_ids(tokenizer, "azéb") == std::vector<int>{0, 7, 7, 7, 1});
}

}  // namespace sinkref
