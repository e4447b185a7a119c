#include <catch2/catch.hpp>
#include <limits>
#include <set>

#include "base/json_file.h"
#include "checkpoint_builder.h"
#include "sinkref/error.h"
#include "tokenizer/factories.h"
#include "tokenizer/sentencepiece_model.h"

namespace sinkref {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path own = fs::path(SINKREF_SOURCE_DIR) / "reference_outputs";

// What it throws, which must be a whole message that names the file; "accepted" if nothing.
template <class Action>
std::string message_of(const Action& action, const std::string& file = "the-file") {
  try {
    action();
  } catch (const InputError& e) {
    const std::string message = e.what();
    check_message(message);
    CHECK_THAT(message, Catch::Contains(file));
    return message;
  }
  return "accepted";
}

std::string refusal(const std::string& model) {
  return message_of([&] { make_sentencepiece_tokenizer(model, "the-file"); });
}

SentencepieceModel good_model() {
  SentencepieceModel model;
  model.is_bpe = true;
  model.remove_extra_whitespaces = false;
  model.pieces = {{"<unk>", 0, PieceType::unknown},
                  {"<s>", 0, PieceType::control},
                  {"</s>", 0, PieceType::control},
                  {"\xE2\x96\x81", -1, PieceType::normal},
                  {"a", -2, PieceType::normal}};
  return model;
}

std::string refusal_of_piece(const Piece& piece) {
  SentencepieceModel model = good_model();
  model.pieces.push_back(piece);
  return refusal(serialize(model));
}

// Where the fields of a message end. All of its fields have a length.
std::set<size_t> field_ends(const std::string& message) {
  std::set<size_t> ends;
  for (size_t at = 0; at < message.size();) {
    REQUIRE((message[at++] & 7) == 2);
    size_t length = 0, shift = 0;
    do length |= size_t(message[at] & 0x7F) << shift, shift += 7;
    while (message[at++] & 0x80);
    ends.insert(at += length);
  }
  return ends;
}

std::string field(int number, const std::string& bytes) {
  std::string out{static_cast<char>(number << 3 | 2)};
  for (int shift : {0, 7, 14}) out += static_cast<char>((bytes.size() >> shift & 0x7F) | 0x80);
  return out + '\0' + bytes;
}

}  // namespace

TEST_CASE("malformed tokenizer.model: the model that the others are made from is accepted") {
  REQUIRE(refusal(serialize(good_model())) == "accepted");
}

TEST_CASE("malformed tokenizer.model: files that are something else") {
  CHECK_THAT(refusal(""), Catch::Contains("is empty"));
  CHECK_THAT(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
             Catch::Contains("git-lfs"));
  for (const std::string& text :
       {std::string("<!DOCTYPE html><html>404</html>"), std::string("{\"a\": 1}"),
        std::string(100, '\0'), std::string(100, '\xff'), std::string("\n")})
    CHECK_THAT(refusal(text), Catch::Contains("sentencepiece") && Catch::Contains("download"));
  CHECK_THAT(refusal(field(2, "")), Catch::Contains("without pieces"));
}

TEST_CASE("malformed tokenizer.model: pieces that libsentencepiece takes or dies of") {
  CHECK_THAT(refusal_of_piece({std::string(200000, 'x')}), Catch::Contains("200000 bytes"));
  CHECK_THAT(refusal_of_piece({std::string(4097, 'x')}), Catch::Contains("4097 bytes"));
  CHECK(refusal_of_piece({std::string(4096, 'x')}) == "accepted");
  CHECK_THAT(refusal_of_piece({std::string("x\0y", 3)}), Catch::Contains("NUL"));
  CHECK_THAT(refusal_of_piece({"\xff\xfe"}), Catch::Contains("not UTF-8"));
  CHECK_THAT(refusal_of_piece({""}), Catch::Contains("is empty"));
  CHECK_THAT(refusal_of_piece({"a"}), Catch::Contains("refuses"));  // a duplicate
  for (float score : {NAN, INFINITY, -INFINITY})
    CHECK_THAT(refusal_of_piece({"x", score}), Catch::Contains("not finite"));
  for (int type : {0, 7, 1000000})
    CHECK_THAT(refusal_of_piece({"x", 0, static_cast<PieceType>(type)}),
               Catch::Contains("expected 1 to 6"));
  for (const char* byte : {"<0x-1>", "<0xZZ>", "<0x0a>", "<0x100>", "<0x>", "x"})
    CHECK_THAT(refusal_of_piece({byte, 0, PieceType::byte}), Catch::Contains("<0x0A>"));
  CHECK_THAT(refusal_of_piece({"<0x0A>", 0, PieceType::byte}), Catch::Contains("refuses"));
}

TEST_CASE("malformed tokenizer.model: no unknown piece") {
  SentencepieceModel model = good_model();
  model.pieces[0].type = PieceType::normal;
  CHECK_THAT(refusal(serialize(model)), Catch::Contains("refuses"));
}

TEST_CASE("malformed tokenizer.model: settings that no LLaMA or Mistral has") {
  const std::string good = serialize(good_model());
  CHECK_THAT(refusal(good + field(2, "\x18\x03")), Catch::Contains("model_type is 3"));
  CHECK_THAT(refusal(good + field(2, "\xC0\x01\x01")), Catch::Contains("treat_whitespace"));
  CHECK_THAT(refusal(good + field(3, std::string("\x28\x00", 2))),
             Catch::Contains("escape_whitespaces"));
  CHECK_THAT(refusal(good + field(5, field(2, "x"))), Catch::Contains("denormalizer"));
  CHECK_THAT(refusal(good + field(7, "x")), Catch::Contains("unknown field 7"));
  CHECK_THAT(refusal(good + field(2, "\x1A\x01x")), Catch::Contains("wire type 2"));
  CHECK_THAT(refusal(good + "\x0B"), Catch::Contains("wire type 3"));
  CHECK_THAT(refusal(good + std::string(12, '\xff')), Catch::Contains("ten bytes"));
}

TEST_CASE(
    "malformed tokenizer.model: more user-defined pieces inside one another than there is room") {
  SentencepieceModel model = good_model();
  for (size_t length = 2; length < 34; ++length)
    model.pieces.push_back({std::string(length, 'u'), 0, PieceType::user_defined});
  CHECK(refusal(serialize(model)) == "accepted");
  model.pieces.push_back({std::string(34, 'u'), 0, PieceType::user_defined});
  CHECK_THAT(refusal(serialize(model)), Catch::Contains("user-defined"));
}

namespace {

// A double array of `blocks` * 256 units that are all empty.
std::vector<uint32_t> empty_trie(size_t blocks) {
  return std::vector<uint32_t>(256 * blocks, 0);
}

std::string charsmap(const std::vector<uint32_t>& trie, const std::string& replacements) {
  return raw(static_cast<uint32_t>(4 * trie.size())) +
         std::string(reinterpret_cast<const char*>(trie.data()), 4 * trie.size()) + replacements;
}

std::string refusal_of_charsmap(const std::string& table) {
  return refusal(serialize(good_model()) + field(3, field(2, table)));
}

constexpr uint32_t has_leaf = 1 << 8, leaf = 1u << 31;

// A unit reached by `label`, whose children are at `offset` from it.
uint32_t unit(uint32_t label, uint32_t offset) {
  return offset << 10 | label;
}

}  // namespace

TEST_CASE("malformed tokenizer.model: normalization tables that point out of bounds") {
  const std::string replacement("b\0", 2);
  auto trie = empty_trie(3);
  trie[0] = unit(0, 256);                                     // the root's children: 256 ^ label
  trie[256 ^ 'a'] = unit('a', (256 ^ 'a') ^ 512) | has_leaf;  // its children: 512 ^ label
  trie[512] = leaf | 0;                                       // its value
  REQUIRE(refusal_of_charsmap(charsmap(trie, replacement)) == "accepted");

  CHECK_THAT(refusal_of_charsmap("abc"), Catch::Contains("size field"));
  CHECK_THAT(refusal_of_charsmap(raw(uint32_t(0xFFFFFFFF)) + "abcd"), Catch::Contains("trie size"));
  CHECK_THAT(refusal_of_charsmap(raw(uint32_t(0)) + replacement), Catch::Contains("trie size"));
  CHECK_THAT(refusal_of_charsmap(charsmap(trie, "")), Catch::Contains("NUL"));
  CHECK_THAT(refusal_of_charsmap(charsmap(trie, "bc")), Catch::Contains("NUL"));
  CHECK_THAT(refusal_of_charsmap(charsmap(trie, std::string("\xff\0", 2))),
             Catch::Contains("UTF-8"));
  auto broken = trie;
  broken[512] = leaf | 2;
  CHECK_THAT(refusal_of_charsmap(charsmap(broken, replacement)), Catch::Contains("replacement"));
  broken = trie;
  broken[0] = unit(0, 1 << 20);
  CHECK_THAT(refusal_of_charsmap(charsmap(broken, replacement)), Catch::Contains("node out of"));
  broken = trie;
  broken[256 ^ 'a'] = unit('a', 1 << 20);
  CHECK_THAT(refusal_of_charsmap(charsmap(broken, replacement)), Catch::Contains("node out of"));
  broken = trie;
  broken[256 ^ 'a'] = unit('a', 'a');  // its own child
  CHECK_THAT(refusal_of_charsmap(charsmap(broken, replacement)), Catch::Contains("cycle"));
}

TEST_CASE(
    "malformed tokenizer.model: more normalization rules inside one another than there is room") {
  auto nested = [](size_t rules) {  // "a", "aa", "aaa", …
    auto trie = empty_trie(rules + 2);
    for (size_t i = 0, node = 0; i <= rules; ++i) {
      const size_t base = 256 * (i + 1);
      trie[node] = unit(i == 0 ? 0 : 'a', node ^ base) | (i == 0 ? 0 : has_leaf);
      trie[base] = leaf | 0;
      node = base ^ 'a';
    }
    return refusal_of_charsmap(charsmap(trie, std::string("b\0", 2)));
  };
  CHECK(nested(32) == "accepted");
  CHECK_THAT(nested(33), Catch::Contains("32 rules"));
  CHECK_THAT(nested(300), Catch::Contains("256 bytes"));
}

TEST_CASE("malformed tokenizer.model: cut at any byte within a field, it is refused") {
  const std::string good = read_text_file(own / "tiny_sentencepiece" / "tokenizer.model");
  const std::set<size_t> ends = field_ends(good);
  REQUIRE(*ends.rbegin() == good.size());
  for (size_t size = 0; size < good.size(); ++size) {
    INFO(size << " of " << good.size() << " bytes");
    const std::string outcome = message_of([&] {
      make_sentencepiece_tokenizer(good.substr(0, size), "the-file")->encode("the river \xC3\xA9");
    });
    CHECK((outcome != "accepted" || ends.contains(size)));  // whole fields may be a whole model
  }
}

TEST_CASE("malformed tokenizer.model: with any byte changed, it is refused or works") {
  const std::string good = read_text_file(own / "tiny_sentencepiece" / "tokenizer.model");
  for (size_t at = 0; at < good.size(); at += 11) {
    std::string changed = good;
    changed[at] = static_cast<char>(changed[at] ^ (at % 2 ? 0xFF : 0x01));
    message_of([&] {
      const auto tokenizer = make_sentencepiece_tokenizer(changed, "the-file");
      const auto ids = tokenizer->encode("the river \xC3\xA9", BosPolicy::off);
      CHECK_NOTHROW(tokenizer->decode(ids));
    });
  }
}

namespace {

json good_json() {
  return json::parse(R"({
    "added_tokens": [{"id": 4, "content": "<x>", "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\s+|\\S+"}, "behavior": "Isolated"},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"<x>": {"id": "<x>", "ids": [4], "tokens": ["<x>"]}}},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}})");
}

// The refusal of the good file with one place replaced.
std::string refusal_with(const char* pointer, const json& value) {
  json changed = good_json();
  changed[json::json_pointer(pointer)] = value;
  return message_of([&] { make_bpe_tokenizer(changed, "the-file")->encode("ab c"); });
}

}  // namespace

TEST_CASE("malformed tokenizer.json: the file that the others are made from is accepted") {
  REQUIRE(refusal_with("/normalizer", nullptr) == "accepted");
}

TEST_CASE("malformed tokenizer.json: parts of a wrong type") {
  for (const char* place : {"/model", "/model/vocab", "/model/merges", "/pre_tokenizer",
                            "/added_tokens", "/added_tokens/0", "/post_processor",
                            "/model/ignore_merges", "/added_tokens/0/lstrip", "/normalizer"})
    for (const json& wrong : {json(7), json("x")}) {
      INFO(place);
      CHECK(refusal_with(place, wrong) != "accepted");
    }
  CHECK_THAT(message_of([] { make_bpe_tokenizer(json::array(), "the-file"); }),
             Catch::Contains("expected an object"));
}

TEST_CASE("malformed tokenizer.json: merges that do not fit the vocabulary") {
  CHECK_THAT(refusal_with("/model/merges/0", "a"), Catch::Contains("two tokens"));
  CHECK_THAT(refusal_with("/model/merges/0", "a b c"), Catch::Contains("two tokens"));
  CHECK_THAT(refusal_with("/model/merges/0", " b"), Catch::Contains("two tokens"));
  CHECK_THAT(refusal_with("/model/merges/0", {"a", "b", "c"}), Catch::Contains("merge"));
  CHECK_THAT(refusal_with("/model/merges/0", {1, 2}), Catch::Contains("merge"));
  CHECK_THAT(refusal_with("/model/merges/0", "a z"), Catch::Contains("one of the vocabulary"));
  CHECK_THAT(refusal_with("/model/merges/0", "b c"), Catch::Contains("\"bc\""));
  CHECK_THAT(refusal_with("/model/merges", {"a b", "a b"}), Catch::Contains("stands twice"));
  CHECK_THAT(refusal_with("/model/merges/0", "a " + std::string(1000, 'b')),
             Catch::Contains("one of the vocabulary"));
}

TEST_CASE("malformed tokenizer.json: ids that are duplicate, huge, negative or no integers") {
  for (const json& id : {json(-1), json(1 << 20), json(4294967296u), json(1e30), json(1.5),
                         json("3"), json(nullptr)}) {
    CHECK_THAT(refusal_with("/model/vocab/c", id), Catch::Contains("expected 0 to 1048575"));
    CHECK_THAT(refusal_with("/added_tokens/0/id", id), Catch::Contains("expected 0 to 1048575"));
  }
  CHECK_THAT(refusal_with("/model/vocab/c", 1), Catch::Contains("one token per id"));
  // A hole at 1, where the next added token would be counted to.
  json taken = good_json();
  taken["model"]["vocab"] = {{"a", 0}, {"b", 4}, {"ab", 2}, {"c", 3}};
  CHECK_THAT(message_of([&] { make_bpe_tokenizer(taken, "the-file"); }),
             Catch::Contains("no other token"));
  CHECK_THAT(refusal_with("/added_tokens/0/content", ""), Catch::Contains("empty"));
  CHECK(refusal_with("/model/vocab/c", 9) == "accepted");  // a hole, whose ids do not exist
  json hole = good_json();
  hole["model"]["vocab"]["c"] = 9;
  CHECK_THROWS_AS(make_bpe_tokenizer(hole, "the-file")->decode({{5}}), InputError);
}

TEST_CASE("malformed tokenizer.json: parts that sinkref does not implement are named") {
  CHECK_THAT(refusal_with("/model/type", "WordPiece"), Catch::Contains("WordPiece"));
  CHECK_THAT(refusal_with("/normalizer", {{"type", "NFC"}}), Catch::Contains("NFC"));
  CHECK_THAT(refusal_with("/pre_tokenizer/pretokenizers/0/type", "Whitespace"),
             Catch::Contains("Whitespace"));
  CHECK_THAT(refusal_with("/pre_tokenizer/pretokenizers/0/behavior", "Removed"),
             Catch::Contains("Removed"));
  CHECK_THAT(refusal_with("/pre_tokenizer/pretokenizers/0/pattern", {{"String", "x"}}),
             Catch::Contains("Regex"));
  CHECK_THAT(refusal_with("/pre_tokenizer/pretokenizers/1/add_prefix_space", true),
             Catch::Contains("add_prefix_space"));
  CHECK_THAT(refusal_with("/pre_tokenizer/pretokenizers", json::array()),
             Catch::Contains("no ByteLevel"));
  CHECK_THAT(refusal_with("/added_tokens/0/single_word", true), Catch::Contains("single_word"));
  CHECK_THAT(refusal_with("/post_processor/type", "BertProcessing"), Catch::Contains("BertProc"));
  CHECK_THAT(refusal_with("/post_processor/single/0/SpecialToken/id", "<y>"),
             Catch::Contains("<y>"));
  for (const json& ids : {json({4, 4}), json::array(), json({9}), json({-1}), json({"4"}), json(4)})
    CHECK(refusal_with("/post_processor/special_tokens/<x>/ids", ids) != "accepted");
  CHECK_THAT(refusal_with("/post_processor/single/2", {{"SpecialToken", {{"id", "<x>"}}}}),
             Catch::Contains("one BOS"));
  CHECK_THAT(refusal_with("/model/unk_token", "<?>"), Catch::Contains("<?>"));
  CHECK_THAT(refusal_with("/model/dropout", 0.1), Catch::Contains("dropout"));
  CHECK_THAT(refusal_with("/model/end_of_word_suffix", "</w>"), Catch::Contains("</w>"));
}

TEST_CASE("malformed tokenizer.json: regular expressions that are wrong, huge or explode") {
  const char* place = "/pre_tokenizer/pretokenizers/0/pattern/Regex";
  CHECK_THAT(refusal_with(place, "(["), Catch::Contains("without"));
  CHECK_THAT(refusal_with(place, std::string(5000, 'a')), Catch::Contains("at most 4096"));
  CHECK_THAT(refusal_with(place, std::string(2000, '(') + std::string(2000, ')')),
             Catch::Contains("100 groups"));
  CHECK_THAT(refusal_with(place, "(?<=a*)b"), Catch::Contains("PCRE2 takes"));
  for (const char* other : {"\\C", "\\b", "\\R", "\\X", "\\K", "\\G", "\\Q", "\\1", "\\k<x>", "\\pL",
                            "\\p{C}", "\\p{Nope}", "\\xe9", "\\x{d800}", "\\", "(?<x>a)", "(?s:.)", "(?m:.)",
                            "a(?i)b", "(*FAIL)", "a{1,3}++", "a{2}?", "a**", "*a", "(?=a)*", "a{3,2}",
                            "a{10000}", "[]a]", "[a&&]", "[&&a]", "[a[b&&c]]", "[[:alpha:]]", "[a-\\d]",
                            "[\\d-a]", "[b-a]", "[\\b]", "[a", "a)", "(?i:ss)", "(?i:\\w)", "(?i:[^a])"}) {
    INFO(other);
    CHECK_THAT(refusal_with(place, other), Catch::Contains("read in one way"));
  }
  CHECK(refusal_with(place, "") == "accepted");  // an empty match cuts everywhere
  json exploding = good_json();
  exploding[json::json_pointer(place)] = "(a|aa)+$";
  CHECK_THAT(message_of([&] {
               make_bpe_tokenizer(exploding, "the-file")->encode(std::string(500, 'a') + "b");
             }),
             Catch::Contains("limit"));
}

TEST_CASE(
    "malformed tokenizer.json: a sentencepiece tokenizer names tokenizer.model as the remedy") {
  CHECK_THAT(refusal_with("/model/byte_fallback", true), Catch::Contains("tokenizer.model"));
  CHECK_THAT(refusal_with("/model/type", "Unigram"), Catch::Contains("tokenizer.model"));
  CHECK_THAT(refusal_with("/pre_tokenizer", {{"type", "Metaspace"}}),
             Catch::Contains("tokenizer.model"));
  CHECK_THAT(refusal_with("/normalizer", {{"type", "Prepend"}, {"prepend", "\xE2\x96\x81"}}),
             Catch::Contains("tokenizer.model"));
}

namespace {

std::map<std::string, json> good_gguf() {
  return {{"tokenizer.ggml.model", "gpt2"},
          {"tokenizer.ggml.pre", "smollm"},
          {"tokenizer.ggml.tokens", {"a", "b", "ab", "<x>"}},
          {"tokenizer.ggml.token_type", {1, 1, 1, 3}},
          {"tokenizer.ggml.merges", {"a b"}},
          {"tokenizer.ggml.bos_token_id", 3}};
}

std::map<std::string, json> good_spm_gguf() {
  return {{"tokenizer.ggml.model", "llama"},
          {"tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a"}},
          {"tokenizer.ggml.scores", {0.0, 0.0, 0.0, -1.0}},
          {"tokenizer.ggml.token_type", {2, 3, 3, 1}}};
}

std::string gguf_refusal(std::map<std::string, json> metadata, const std::string& key,
                         const json& value) {
  metadata["tokenizer.ggml." + key] = value;
  return message_of([&] { make_tokenizer_from_gguf(metadata, "the-file")->encode("ab"); });
}

std::string gguf_refusal_without(std::map<std::string, json> metadata, const std::string& key) {
  metadata.erase("tokenizer.ggml." + key);
  return message_of([&] { make_tokenizer_from_gguf(metadata, "the-file")->encode("ab"); });
}

}  // namespace

TEST_CASE("malformed GGUF vocabulary: keys that are missing or of a wrong type or size") {
  REQUIRE(gguf_refusal(good_gguf(), "model", "gpt2") == "accepted");
  REQUIRE(gguf_refusal(good_spm_gguf(), "model", "llama") == "accepted");
  for (const char* key : {"model", "tokens", "merges", "pre", "token_type"}) {
    INFO(key);
    CHECK_THAT(gguf_refusal_without(good_gguf(), key), Catch::Contains(key));
  }
  for (const char* key : {"tokens", "scores"}) {
    INFO(key);
    CHECK_THAT(gguf_refusal_without(good_spm_gguf(), key), Catch::Contains(key));
  }
  for (const char* key : {"model", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id",
                          "add_bos_token", "add_eos_token", "pre"}) {
    for (const json& wrong : {json(1.5), json::object(), json::array({json::array()})}) {
      INFO(key << " = " << wrong.dump());
      CHECK(gguf_refusal(good_gguf(), key, wrong) != "accepted");
    }
  }
  CHECK_THAT(gguf_refusal(good_gguf(), "token_type", {1, 1}), Catch::Contains("2 entries"));
  CHECK_THAT(gguf_refusal(good_spm_gguf(), "scores", {1.0}), Catch::Contains("1 entries"));
  CHECK_THAT(gguf_refusal(good_gguf(), "tokens", json::array()), Catch::Contains("0 entries"));
}

TEST_CASE("malformed GGUF vocabulary: values out of range") {
  for (const json& type : {json(0), json(7), json(-1), json(1e30), json("1")})
    CHECK_THAT(gguf_refusal(good_gguf(), "token_type", {1, 1, 1, type}),
               Catch::Contains("expected 1 to 6"));
  for (const json& id : {json(-1), json(4), json(4294967295u), json(18446744073709551615u)})
    CHECK_THAT(gguf_refusal(good_gguf(), "bos_token_id", id), Catch::Contains("expected 0 to 3"));
  for (double score : {std::numeric_limits<double>::infinity(), 1e300, double(NAN)})
    CHECK_THAT(gguf_refusal(good_spm_gguf(), "scores", {0, 0, 0, score}),
               Catch::Contains("finite"));
  CHECK_THAT(gguf_refusal(good_gguf(), "tokens", {"a", "b", "ab", "\xff"}),
             Catch::Contains("UTF-8"));
  CHECK_THAT(gguf_refusal(good_gguf(), "tokens", {"a", "b", "ab", "ab"}),
             Catch::Contains("stands twice"));
  CHECK_THAT(gguf_refusal(good_gguf(), "tokens", {"a", "b", "ab", ""}), Catch::Contains("empty"));
  CHECK_THAT(gguf_refusal(good_gguf(), "merges", {"a  b"}), Catch::Contains("two tokens"));
  CHECK_THAT(gguf_refusal(good_spm_gguf(), "token_type", {2, 3, 3, 6}),
             Catch::Contains("byte piece"));
}

TEST_CASE("malformed GGUF vocabulary: what does not say how to merge is refused with what is missing") {
  std::map<std::string, json> metadata = good_spm_gguf();
  metadata["tokenizer.ggml.tokens"] = {"<unk>", "<s>", "</s>", "a", "b", "ab", "ba"};
  metadata["tokenizer.ggml.token_type"] = {2, 3, 3, 1, 1, 1, 1};
  const auto with = [&](const json& scores) { return gguf_refusal(metadata, "scores", scores); };
  REQUIRE(with({0, 0, 0, -3, -4, 0, -1}) == "accepted");
  for (const double flat : {0.0, -1.0, -1000.0, -10000.0, 5.0})
    CHECK_THAT(with({0, 0, 0, flat, flat, flat, flat}), Catch::Contains("all alike"));
  CHECK_THAT(with({0, 0, 0, -3, -4, -7, -7}), Catch::Contains("all alike"));
  CHECK_THAT(with({0, 0, 0, -3.25, -4.5, -1.75, -2.125}), Catch::Contains("log-probabilities"));
  CHECK_THAT(with({0, 0, 0, 0, -4, 0, -1}), Catch::Contains("user-defined"));
  metadata["tokenizer.ggml.merges"] = {"a b", "b a"};
  CHECK_THAT(with({0, 0, 0, 0, 0, 0, 0}), Catch::Contains("tokenizer.ggml.merges"));
  CHECK_THAT(gguf_refusal(good_gguf(), "merges", json::array()), Catch::Contains("is empty"));
}

TEST_CASE("malformed GGUF vocabulary: a text that needs what the file does not say is refused") {
  std::map<std::string, json> metadata = good_spm_gguf();
  const auto encode = [&](const std::string& text) {
    return message_of([&] { make_tokenizer_from_gguf(metadata, "the-file")->encode(text); });
  };
  CHECK(encode("a b") == "accepted");
  for (const char* text : {" a", "a ", "a  b"})
    CHECK_THAT(encode(text), Catch::Contains("remove_extra_whitespaces"));
  for (const char* text : {"a\tb", "a\nb", "\xC2\xBD", "\xEF\xAC\x81", "\x7F"})
    CHECK_THAT(encode(text), Catch::Contains("normalised"));
  metadata["tokenizer.ggml.tokens"][3] = "\xE2\x80\xA6";  // "…", which NFKC would have replaced
  CHECK(encode("a\tb \xC2\xBD") == "accepted");
  CHECK(encode(" a") != "accepted");
  metadata["tokenizer.ggml.tokens"][3] = "a";
  metadata["tokenizer.ggml.remove_extra_whitespaces"] = true;
  CHECK(encode(" a  \xC2\xBD ") == "accepted");
}

TEST_CASE("malformed GGUF vocabulary: unknown kinds are named") {
  CHECK_THAT(gguf_refusal(good_gguf(), "model", "bert"), Catch::Contains("\"bert\""));
  CHECK_THAT(gguf_refusal(good_gguf(), "pre", "qwen2"),
             Catch::Contains("\"qwen2\"") && Catch::Contains("smollm"));
  CHECK_THAT(gguf_refusal(good_gguf(), "pre", "default"), Catch::Contains("\"default\""));
  CHECK_THAT(gguf_refusal(good_gguf(), "add_eos_token", true), Catch::Contains("add_eos_token"));
}

namespace {

// What Tokenizer::open says of a folder with these files, beside a config.json.
std::string folder_refusal(const std::map<std::string, std::string>& files,
                           bool with_model = true) {
  const TempDir folder;
  folder.write("config.json", R"({"vocab_size": 400})");
  if (with_model) fs::copy(own / "tiny_sentencepiece" / "tokenizer.model", folder.path());
  for (const auto& [name, content] : files) folder.write(name, content);
  return message_of([&] { Tokenizer::open(Checkpoint::open(folder.path())); },
                    folder.path().string());
}

}  // namespace

TEST_CASE("malformed tokenizer folder: no tokenizer, or only tiktoken's format") {
  CHECK_THAT(folder_refusal({}, false), Catch::Contains("tokenizer.model or tokenizer.json"));
  CHECK_THAT(folder_refusal({{"tokenizer.model", "IQ== 0\nIg== 1\n"}}),
             Catch::Contains("tiktoken") && Catch::Contains("tokenizer.json"));
}

TEST_CASE("malformed tokenizer folder: more tokens than rows of the embedding") {
  CHECK(folder_refusal({}) == "accepted");
  CHECK_THAT(folder_refusal({{"config.json", R"({"vocab_size": 399})"}}),
             Catch::Contains("has 400 tokens") && Catch::Contains("399"));
  // Added tokens may go beyond as long as no text holds them.
  const TempDir folder;
  folder.write("config.json", R"({"vocab_size": 400})");
  fs::copy(own / "tiny_sentencepiece" / "tokenizer.model", folder.path());
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"400": {"content": "<pre>"}},
                                            "extra_special_tokens": ["<suf>"]})");
  const auto tokenizer = Tokenizer::open(Checkpoint::open(folder.path()));
  CHECK(message_of([&] { tokenizer->encode("the river"); }) == "accepted");
  const auto encode = [&](const char* text) {
    return message_of([&] { tokenizer->encode(text); }, folder.path().string());
  };
  CHECK_THAT(encode("the<pre>"), Catch::Contains("of id 400"));
  CHECK_THAT(encode("the<suf>"), Catch::Contains("of id 401"));
}

TEST_CASE("malformed tokenizer folder: settings that are wrong or contradict the model") {
  auto config = [](const std::string& text) {
    return folder_refusal({{"tokenizer_config.json", text}});
  };
  REQUIRE(config("{}") == "accepted");
  CHECK_THAT(config("[]"), Catch::Contains("expected a JSON object"));
  CHECK_THAT(config("{"), Catch::Contains("expected JSON"));
  CHECK_THAT(config(R"({"add_bos_token": 1})"), Catch::Contains("expected true or false"));
  CHECK_THAT(config(R"({"add_eos_token": true})"), Catch::Contains("add_eos_token"));
  CHECK_THAT(config(R"({"bos_token": 1})"), Catch::Contains("bos_token"));
  CHECK_THAT(config(R"({"bos_token": "<no>"})"), Catch::Contains("<no>"));
  CHECK(config(R"({"bos_token": "", "eos_token": {"content": "</s>"}})") == "accepted");
  CHECK_THAT(config(R"({"added_tokens_decoder": []})"), Catch::Contains("expected an object"));
  auto added = [&](const std::string& id, const std::string& token) {
    return config(R"({"added_tokens_decoder": {")" + id + "\": " + token + "}}");
  };
  CHECK(added("1", R"({"content": "<s>"})") == "accepted");
  CHECK_THAT(added("1", R"({"content": "<t>"})"), Catch::Contains("no other token"));
  CHECK_THAT(added("400", R"({"content": "<s>"})"), Catch::Contains("no other token"));
  CHECK_THAT(added("0400", R"({"content": "<u>"}, "400": {"content": "<t>"})"),
             Catch::Contains("one token per id"));
  CHECK_THAT(added("x", R"({"content": "<t>"})"), Catch::Contains("expected a token id"));
  CHECK_THAT(added("400", R"({"content": ""})"), Catch::Contains("empty"));
  CHECK_THAT(added("400", "{}"), Catch::Contains("content"));
  CHECK_THAT(added("-1", R"({"content": "<t>"})"), Catch::Contains("expected 0 to"));
  CHECK_THAT(added("99999999", R"({"content": "<t>"})"), Catch::Contains("expected 0 to"));
  CHECK_THAT(added("400", R"({"content": "<t>", "single_word": true})"),
             Catch::Contains("single_word"));
  CHECK_THAT(folder_refusal({{"added_tokens.json", R"({"<t>": "400"})"}}),
             Catch::Contains("expected 0 to"));
  CHECK_THAT(folder_refusal({{"tokenizer.json", R"({"added_tokens": [7]})"}}),
             Catch::Contains("content"));
}

}  // namespace sinkref
