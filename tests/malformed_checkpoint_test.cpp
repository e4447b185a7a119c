#include <sys/stat.h>

#include "checkpoint_builder.h"
#include "sinkref/config.h"
#include "sinkref/model.h"

using namespace sinkref;
using nlohmann::json;

namespace {

void refuses_path(const std::filesystem::path& path, const std::vector<std::string>& parts) {
  input_error([&] { touch(path); }, parts);
}

void refuses_safetensors(const std::string& content, std::vector<std::string> parts) {
  TempDir dir;
  dir.write("config.json", tiny_config().dump());
  dir.write("model.safetensors", content);
  parts.push_back("model.safetensors");
  refuses_path(dir.path(), parts);
}

void opens_safetensors(const std::string& content) {
  TempDir dir;
  dir.write("config.json", tiny_config().dump());
  dir.write("model.safetensors", content);
  CHECK_NOTHROW(touch(dir.path()));
}

// One tensor "t" of this entry, in a file with `bytes` bytes of data.
std::string one_tensor(const std::string& entry, size_t bytes = 8) {
  return safetensors_file("{\"t\":" + entry + "}", std::string(bytes, '\0'));
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

void refuses_gguf(const std::string& content, std::vector<std::string> parts) {
  TempDir dir;
  parts.push_back("model.gguf");
  refuses_path(dir.write("model.gguf", content), parts);
}

void refuses_gguf(const GgufBuilder& gguf, const std::vector<std::string>& parts) {
  refuses_gguf(gguf.build(), parts);
}

struct Folder {
  TempDir dir;
  Folder() { dir.write("config.json", tiny_config().dump()); }
  Folder& shard(const std::string& name, const std::vector<BuiltTensor>& tensors) {
    dir.write(name, safetensors_file(tensors));
    return *this;
  }
  Folder& index(const std::string& text) {
    dir.write("model.safetensors.index.json", text);
    return *this;
  }
  Folder& map(const json& weight_map) { return index(json{{"weight_map", weight_map}}.dump()); }
  void refused(const std::vector<std::string>& parts) { refuses_path(dir.path(), parts); }
};

// Opens with no crash, or throws InputError; anything else fails the test.
bool opens_or_refuses(const std::filesystem::path& path) {
  try {
    touch(path);
    read_config(Checkpoint::open(path));
    return true;
  } catch (const InputError&) {
    return false;
  }
}

std::string small_safetensors() {
  return safetensors_file({f32("model.norm.weight", {8}),
                           {"model.layers.0.input_layernorm.weight", "BF16", {2, 2}, "12345678"}});
}

std::string small_gguf() {
  GgufBuilder gguf = tiny_gguf().texts("tokenizer.ggml.tokens", {"a", "b"});
  gguf.tensor("blk.0.attn_q.weight", 0, {8, 8}, raw_floats(counting(64)));
  gguf.tensor("output_norm.weight", 1, {8}, std::string(16, '\1'));
  gguf.tensor("blk.0.ffn_up.weight", 8, {2, 32}, std::string(68, '\2'));
  return gguf.build();
}

}  // namespace

TEST_CASE("malformed path: what is no model is refused with what would do") {
  TempDir dir;
  refuses_path(dir.path() / "absent", {"absent", "no such file"});
  refuses_path(dir.path(), {dir.path().string(), "config.json", ".gguf"});
  refuses_path(dir.write("notes.txt", "hello"), {"notes.txt", "config.json", ".gguf"});
  refuses_path(dir.write("empty.bin", ""), {"empty.bin"});
  REQUIRE(mkfifo((dir.path() / "fifo.gguf").c_str(), 0600) == 0);
  refuses_path(dir.path() / "fifo.gguf", {"fifo.gguf"});
  std::filesystem::create_symlink("nowhere", dir.path() / "dangling.gguf");
  refuses_path(dir.path() / "dangling.gguf", {"dangling.gguf"});
  std::filesystem::create_symlink("loop.gguf", dir.path() / "loop.gguf");
  refuses_path(dir.path() / "loop.gguf", {"loop.gguf"});
  input_error([&] { Checkpoint::open(dir.path() / std::string(300, 'n')); }, {"nnn"});
  dir.write("a.gguf", "");
  refuses_path(dir.path(), {"config.json", "a.gguf"});
}

TEST_CASE("malformed path: adapters and other forms of a model are called what they are") {
  TempDir dir;
  dir.write("params.json", "{}");
  refuses_path(dir.path(), {"Meta's own form", "params.json"});
  for (const char* kind : {"LORA", "IA3", "PROMPT_TUNING"}) {
    dir.write("adapter_config.json",
              json{{"peft_type", kind}, {"base_model_name_or_path", "some/base"}}.dump());
    refuses_path(dir.path(), {"adapter", kind, "some/base"});
  }
  dir.write("adapter_config.json", "{}");
  dir.write("config.json", tiny_config().dump());
  refuses_path(dir.path(), {"adapter", "merge"});
}

TEST_CASE("malformed config.json: every way of not being a JSON object is refused") {
  const std::string deep(100'000, '[');
  for (const std::string& text :
       {std::string(),
        std::string("  "),
        std::string("{"),
        std::string("[]"),
        std::string("null"),
        std::string("\"text\""),
        std::string("\xEF\xBB\xBF{}"),
        std::string("{} x"),
        std::string("{}{}"),
        std::string("{\"a\":1,\"a\":2}"),
        std::string("{\"a\":\"\xff\"}"),
        std::string("{\"a\":1e400}"),
        std::string("{'a':1}"),
        std::string("{\"a\":\n\n1,}"),
        deep,
        "{\"a\":" + deep,
        std::string("\0{}", 3),
        std::string("{}\0", 3),
        std::string("<!DOCTYPE html>"),
        std::string("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")}) {
    INFO(text.substr(0, 40));
    TempDir dir;
    dir.write("config.json", text);
    refuses_path(dir.path(), {"config.json"});
  }
}

TEST_CASE("malformed JSON: nesting is limited before it can exhaust the stack") {
  for (const size_t depth : {100, 100'000}) {
    const std::string nested = "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
    TempDir dir;
    dir.write("config.json", nested);
    refuses_path(dir.path(), {"config.json", "nested"});
    refuses_safetensors(safetensors_file(nested), {"nested"});
  }
}

TEST_CASE("malformed config.json: a folder, a FIFO or a bad link in its place is refused") {
  TempDir folder, fifo, link, loop;
  std::filesystem::create_symlink("config.json", loop.path() / "config.json");
  refuses_path(loop.path(), {"config.json"});
  std::filesystem::create_directory(folder.path() / "config.json");
  refuses_path(folder.path(), {"config.json"});
  REQUIRE(mkfifo((fifo.path() / "config.json").c_str(), 0600) == 0);
  refuses_path(fifo.path(), {"config.json"});
  std::filesystem::create_symlink("nowhere", link.path() / "config.json");
  refuses_path(link.path(), {"config.json"});
}

TEST_CASE("malformed config.json: a claim of more layers than there are tensors is refused") {
  // With 2^31-1 layers, a list of the tensors that they need would fill the memory.
  for (const size_t layers : {size_t{2}, size_t{INT32_MAX}}) {
    nlohmann::json config = tiny_config();
    config["num_hidden_layers"] = layers;
    Folder folder;
    folder.dir.write("config.json", config.dump());
    input_error([&] { Model::open(folder.dir.path()); }, {"holds no weights"});
    folder.shard("model.safetensors", {f32("model.embed_tokens.weight", {16, 8})});
    input_error([&] { Model::open(folder.dir.path()); },
                {"config.json", std::to_string(layers) + " layers", "the 1 tensors"});
  }
  GgufBuilder gguf;
  gguf.text("general.architecture", "llama");
  for (const char* key : {"context_length", "embedding_length", "feed_forward_length"})
    gguf.u32("llama." + std::string(key), 8);
  gguf.u32("llama.attention.head_count", 2);
  gguf.u32("llama.block_count", INT32_MAX).f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  gguf.tensor("token_embd.weight", 0, {16, 8}, raw_floats(counting(128)));
  TempDir dir;
  input_error([&] { Model::open(dir.write("model.gguf", gguf.build())); },
              {"model.gguf", "2147483647 layers"});
}

TEST_CASE("malformed safetensors: header lengths that do not fit are refused") {
  for (size_t length = 0; length < 8; ++length)
    refuses_safetensors(std::string(length, '\1'), {std::to_string(length) + " bytes"});
  const std::string header = "{}";
  for (const uint64_t length :
       {uint64_t{0}, uint64_t{3}, uint64_t{100'000'001}, UINT64_MAX, UINT64_MAX - 7})
    refuses_safetensors(raw(length) + header, {"header length is " + std::to_string(length)});
  refuses_safetensors("version https://git-lfs.github.com/spec/v1\n", {"git lfs pull"});
  refuses_safetensors("<!DOCTYPE html><html><head>", {"header length"});
  opens_safetensors(safetensors_file("{}"));
  opens_safetensors(safetensors_file("{}   "));
}

TEST_CASE("malformed safetensors: headers that are not strict JSON objects are refused") {
  const std::string deep(200, '[');
  for (const std::string& header :
       {std::string("[]"), std::string(" {}"), std::string("\xEF\xBB\xBF{}"), std::string("{}x"),
        std::string("{}\0", 3), std::string("{}\0{}", 5), std::string("{"),
        std::string("{\"a\":\"\xff\"}"), std::string("{\"a\":\"\\ud800\"}"), "{\"a\":" + deep,
        std::string("{\"a\":NaN}"), std::string("{\"t\":{},\"t\":{}}"), std::string("null")}) {
    INFO(header.substr(0, 40));
    refuses_safetensors(safetensors_file(header), {"header"});
  }
}

TEST_CASE("malformed safetensors: a tensor or a field that stands twice is refused") {
  const std::string t = entry("F32", "[2]", "[0,8]");
  refuses_safetensors(safetensors_file("{\"t\":" + t + ",\"t\":" + t + "}", std::string(8, '\0')),
                      {"\"t\"", "twice"});
  refuses_safetensors(
      one_tensor("{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"),
      {"\"dtype\"", "twice"});
  refuses_safetensors(safetensors_file("{\"__metadata__\":{},\"__metadata__\":{}}"),
                      {"__metadata__", "twice"});
}

TEST_CASE("malformed safetensors: entries with missing, unknown or mistyped fields are refused") {
  refuses_safetensors(one_tensor("[]"), {"\"t\"", "expected an object"});
  refuses_safetensors(one_tensor("{\"shape\":[2],\"data_offsets\":[0,8]}"), {"\"t\"", "dtype"});
  refuses_safetensors(one_tensor("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}"), {"\"t\"", "shape"});
  refuses_safetensors(one_tensor("{\"dtype\":\"F32\",\"shape\":[2]}"), {"\"t\"", "data_offsets"});
  refuses_safetensors(
      one_tensor("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"stride\":1}"),
      {"\"t\"", "\"stride\""});
  for (const char* dtype : {"f32", "F33", "", "float32", "F8_E4M3FN"})
    refuses_safetensors(one_tensor(entry(dtype, "[2]", "[0,8]")), {"\"t\"", "dtype"});
  refuses_safetensors(one_tensor("{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}"),
                      {"\"t\"", "dtype"});
  for (const char* shape : {"2", "[-1]", "[2.0]", "[1e1]", "[\"2\"]", "[18446744073709551616]",
                            "[null]", "{}", "[[2]]", "[true]"})
    refuses_safetensors(one_tensor(entry("F32", shape, "[0,8]")), {"\"t\"", "shape"});
  for (const char* offsets : {"[0]", "[0,8,8]", "[]", "8", "[8,0]", "[-8,0]", "[0,8.0]", "[0,16]",
                              "[0,18446744073709551615]", "[18446744073709551615,7]", "[0,null]"})
    refuses_safetensors(one_tensor(entry("F32", "[2]", offsets)), {"\"t\"", "data_offsets"});
}

TEST_CASE("malformed safetensors: sizes that overflow or do not fit the offsets are refused") {
  for (const char* shape : {"[3]", "[1]", "[]", "[4294967296,4294967296]", "[2,0]",
                            "[4611686018427387905]", "[2305843009213693954]"})
    refuses_safetensors(one_tensor(entry("F32", shape, "[0,8]")), {"\"t\"", "shape ["});
  refuses_safetensors(one_tensor(entry("F32", "[4294967296,4294967296]", "[0,0]"), 0),
                      {"\"t\"", "shape ["});
  refuses_safetensors(one_tensor(entry("F32", "[4294967296,4294967296,0]", "[0,0]"), 0),
                      {"\"t\"", "shape ["});
  refuses_safetensors(one_tensor(entry("F32", "[0,4294967296,4294967296]", "[0,0]"), 0),
                      {"\"t\"", "shape ["});
  refuses_safetensors(one_tensor(entry("F4", "[3]", "[0,1]"), 1), {"\"t\"", "F4"});
  opens_safetensors(one_tensor(entry("F4", "[4]", "[0,2]"), 2));
}

TEST_CASE("malformed safetensors: gaps, overlaps and bytes that belong to nothing are refused") {
  const auto two = [](const std::string& first, const std::string& second, size_t bytes) {
    return safetensors_file(
        "{\"a\":" + entry("F32", "[2]", first) + ",\"b\":" + entry("F32", "[2]", second) + "}",
        std::string(bytes, '\0'));
  };
  refuses_safetensors(two("[0,8]", "[12,20]", 20), {"\"b\"", "gap"});
  refuses_safetensors(two("[0,8]", "[4,12]", 12), {"\"b\"", "overlap"});
  refuses_safetensors(two("[0,8]", "[0,8]", 8), {"overlap"});
  refuses_safetensors(two("[4,12]", "[12,20]", 20), {"\"a\"", "expected 0"});
  refuses_safetensors(two("[0,8]", "[8,16]", 20), {"20 bytes", "expected the 16"});
  refuses_safetensors(two("[0,8]", "[8,16]", 15), {"\"b\"", "truncated"});
  refuses_safetensors(safetensors_file("{}", "x"), {"1 bytes"});
  opens_safetensors(two("[8,16]", "[0,8]", 16));
}

TEST_CASE("malformed safetensors: metadata must map strings to strings") {
  for (const char* metadata : {"[]", "null", "1", "{\"a\":1}", "{\"a\":null}", "{\"a\":{}}"})
    refuses_safetensors(safetensors_file("{\"__metadata__\":" + std::string(metadata) + "}"),
                        {"__metadata__"});
}

TEST_CASE("malformed safetensors: odd but valid files open") {
  opens_safetensors(one_tensor(entry("F32", "[0]", "[0,0]"), 0));
  opens_safetensors(one_tensor(entry("F32", "[]", "[0,4]"), 4));
  opens_safetensors(safetensors_file("{\"../../x\\u0000\":" + entry("I64", "[1]", "[0,8]") + "}",
                                     std::string(8, '\0')));
  std::string ones = "[1";
  for (int i = 1; i < 1000; ++i) ones += ",1";
  opens_safetensors(one_tensor(entry("F32", ones + "]", "[0,4]"), 4));
}

TEST_CASE("malformed index: a weight_map that is no map of names to plain files is refused") {
  for (const char* text :
       {"", "[]", "{}", "{\"weight_map\":[]}", "{\"weight_map\":{}}", "{\"weight_map\":null}"})
    Folder().index(text).refused({"model.safetensors.index.json"});
  for (const json& file : {json(1), json(nullptr), json::array({"a"})})
    Folder().map({{"a", file}}).refused({"index.json", "\"a\""});
  TempDir outside;
  outside.write("x.safetensors", safetensors_file({f32("a", {2})}));
  for (const std::string& file :
       {std::string(".."), std::string("."), std::string(""), std::string("../x.safetensors"),
        (outside.path() / "x.safetensors").string(), std::string("sub/x.safetensors"),
        std::string("a\\b"), std::string("a\nb"), std::string("a\0b", 3)})
    Folder().map({{"a", file}}).refused({"index.json", "plain file name"});
}

TEST_CASE("malformed index: shards that are missing or hold other tensors are refused by name") {
  const json a_and_b = {{"a", "1.safetensors"}, {"b", "2.safetensors"}};
  Folder().shard("1.safetensors", {f32("a", {2})}).map(a_and_b).refused({"2.safetensors"});
  Folder()
      .shard("1.safetensors", {f32("a", {2})})
      .shard("2.safetensors", {})
      .map(a_and_b)
      .refused({"2.safetensors", "\"b\"", "index.json"});
  Folder()
      .shard("1.safetensors", {f32("a", {2})})
      .shard("2.safetensors", {f32("a", {2}), f32("b", {2})})
      .map(a_and_b)
      .refused({"2.safetensors", "\"a\"", "1.safetensors"});
  Folder()
      .shard("1.safetensors", {f32("a", {2}), f32("c", {2})})
      .shard("2.safetensors", {f32("b", {2})})
      .map(a_and_b)
      .refused({"1.safetensors", "\"c\"", "index.json"});
}

TEST_CASE("malformed index: dangling links, folders and stray shards") {
  Folder dangling;
  std::filesystem::create_symlink("nowhere", dangling.dir.path() / "model.safetensors");
  dangling.refused({"model.safetensors"});
  Folder loop;
  std::filesystem::create_symlink("model.safetensors", loop.dir.path() / "model.safetensors");
  loop.refused({"model.safetensors"});
  Folder folder;
  std::filesystem::create_directory(folder.dir.path() / "1.safetensors");
  folder.map({{"a", "1.safetensors"}}).refused({"1.safetensors", "not a regular file"});
  // Mistral's folders hold a consolidated.safetensors beside the shards: not named, not read.
  Folder stray;
  stray.shard("1.safetensors", {f32("a", {2})}).shard("consolidated.safetensors", {f32("z", {2})});
  stray.map({{"a", "1.safetensors"}});
  CHECK(Checkpoint::open(stray.dir.path()).tensors().size() == 1);
}

TEST_CASE("malformed gguf: magic, version and counts are checked") {
  GgufBuilder gguf = tiny_gguf();
  refuses_gguf(std::string(), {"GGUF"});
  refuses_gguf(std::string("GGU"), {"GGUF"});
  refuses_gguf(std::string("GGUF"), {"version", "truncated"});
  gguf.magic = "FUGG";
  refuses_gguf(gguf, {"GGUF"});
  gguf.magic = "GGUF";
  for (const uint32_t version : {0u, 1u, 4u, 0xffffffffu}) {
    gguf.version = version;
    refuses_gguf(gguf, {"version is " + std::to_string(version)});
  }
  gguf.version = 0x03000000;
  refuses_gguf(gguf, {"big-endian"});
  gguf.version = 3;
  for (const uint64_t extra : {uint64_t{1} << 60, UINT64_MAX}) {
    GgufBuilder more = tiny_gguf();
    more.extra_tensors = extra;
    refuses_gguf(more, {"tensors"});
    more.extra_tensors = 0;
    more.extra_keys = extra - 100;
    refuses_gguf(more, {"metadata keys"});
  }
  refuses_gguf(std::string("<!DOCTYPE html>"), {"GGUF"});
  refuses_gguf(std::string("version https://git-lfs.github.com/spec/v1"), {"GGUF"});
}

TEST_CASE("malformed gguf: keys must be unique, named, and of a known type") {
  refuses_gguf(tiny_gguf().u32("llama.block_count", 2), {"llama.block_count", "twice"});
  refuses_gguf(tiny_gguf().u32("", 2), {"is empty"});
  refuses_gguf(tiny_gguf().key("k", 13, raw<uint64_t>(0)), {"\"k\"", "13"});
  refuses_gguf(tiny_gguf().key("k", 0xffffffff, raw<uint64_t>(0)), {"\"k\"", "4294967295"});
  refuses_gguf(tiny_gguf().key("k", 7, raw<uint8_t>(2)), {"\"k\"", "boolean"});
  refuses_gguf(tiny_gguf().u32(std::string(65536, 'k'), 1), {"65536"});
  refuses_gguf(tiny_gguf().u32("evil\nkey", 1).u32("evil\nkey", 1), {"evil\\x0akey"});
}

TEST_CASE("malformed gguf: lengths of strings and arrays are bounded by what is left") {
  for (const uint64_t length : {uint64_t{1000}, uint64_t{1} << 62, UINT64_MAX}) {
    const std::string claimed = std::to_string(length);
    refuses_gguf(tiny_gguf().key("k", 8, raw(length)), {"\"k\"", claimed});
    for (uint32_t type = 0; type <= 12; ++type)
      if (type != 9)
        refuses_gguf(tiny_gguf().key("k", 9, raw(type) + raw(length)), {"\"k\"", claimed});
  }
  refuses_gguf(tiny_gguf().key("k", 9, raw<uint32_t>(9) + raw<uint64_t>(1)), {"\"k\"", "array"});
  refuses_gguf(tiny_gguf().key("k", 9, raw<uint32_t>(13) + raw<uint64_t>(1)), {"\"k\"", "array"});
  const std::string inner = raw<uint32_t>(8) + raw<uint64_t>(1) + raw<uint64_t>(1u << 20);
  refuses_gguf(tiny_gguf().key("k", 9, inner), {"\"k\"", "1048576"});
}

TEST_CASE("malformed gguf: the alignment must be a power of two and of the right type") {
  for (const uint32_t bad : {0u, 1u, 4u, 24u, 33u, 1u << 25, 1u << 31})
    refuses_gguf(tiny_gguf().u32("general.alignment", bad), {"general.alignment", "power of two"});
  refuses_gguf(tiny_gguf().text("general.alignment", "32\xff"), {"general.alignment"});
  refuses_gguf(tiny_gguf().f32("general.alignment", 32), {"general.alignment"});
  refuses_gguf(tiny_gguf().texts("general.alignment", {"32"}), {"general.alignment"});
  GgufBuilder other = tiny_gguf().u32("general.alignment", 64);
  other.tensor("output_norm.weight", 0, {8}, raw_floats(counting(8)));
  other.tensor("blk.0.attn_norm.weight", 0, {8}, raw_floats(counting(8)));
  refuses_gguf(other, {"blk.0.attn_norm.weight", "64"});
}

TEST_CASE("malformed gguf: names, dimensions and types of tensors are checked") {
  const std::string data(32, '\0');
  refuses_gguf(tiny_gguf().tensor(std::string(65, 'n'), 0, {8}, data), {"65"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {}, data), {"\"t\"", "0 dimensions"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {1, 1, 1, 1, 8}, data), {"\"t\"", "5 dimensions"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {0}, data), {"\"t\"", "dimension of 0"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {8, 0}, data), {"\"t\"", "dimension of 0"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {uint64_t{1} << 63}, data), {"\"t\"", "dimension"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {UINT64_MAX}, data), {"\"t\"", "dimension"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {uint64_t{1} << 32, uint64_t{1} << 32}, data),
               {"\"t\"", "overflows"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {uint64_t{1} << 62}, data), {"\"t\"", "overflows"});
  refuses_gguf(tiny_gguf().tensor("t", 8, {2, 33}, data), {"\"t\"", "33", "Q8_0"});
  refuses_gguf(tiny_gguf().tensor("t", 12, {2, 32}, data), {"\"t\"", "32", "Q4_K"});
  for (const uint32_t type : {42u, 1000u, 0x80000000u, 0xffffffffu})
    refuses_gguf(tiny_gguf().tensor("t", type, {8}, data),
                 {"\"t\"", "unknown ggml type " + std::to_string(type)});
  const std::pair<uint32_t, std::string> removed[] = {
      {4, "Q4_2"},      {5, "Q4_3"},        {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},
      {33, "Q4_0_8_8"}, {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}};
  for (const auto& [type, name] : removed)
    refuses_gguf(tiny_gguf().tensor("t", type, {8}, data), {"\"t\"", name, "taken out"});
}

TEST_CASE("malformed gguf: tensors under Hugging Face's names are refused, their order is unknown") {
  const std::string data = raw_floats(counting(16));
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight",
                           "layers.0.self_attn.k_proj.weight", "lm_head.weight"})
    refuses_gguf(tiny_gguf().tensor(name, 0, {4, 4}, data), {name, "Hugging Face's name"});
}

TEST_CASE("malformed gguf: a pointer or a web page in the file's place is called so") {
  TempDir dir;
  refuses_path(dir.write("a.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
               {"a.gguf", "git-lfs pointer", "git lfs pull"});
  refuses_path(dir.write("b.gguf", "<!DOCTYPE html><html>404</html>"), {"b.gguf", "web page"});
}

TEST_CASE("malformed gguf: tensors must lie one after the other within the file") {
  const std::string data = raw_floats(counting(8));
  GgufBuilder twice = tiny_gguf().tensor("output.weight", 0, {8}, data);
  refuses_gguf(twice.tensor("output.weight", 0, {8}, data), {"output.weight", "twice"});
  for (const uint64_t offset : {uint64_t{1}, uint64_t{32}, uint64_t{1} << 40, UINT64_MAX - 31})
    refuses_gguf(tiny_gguf().tensor_at(offset, "t", 0, {8}, data),
                 {"\"t\"", "offset " + std::to_string(offset)});
  GgufBuilder overlap = tiny_gguf().tensor("a", 0, {8}, data);
  refuses_gguf(overlap.tensor_at(0, "b", 0, {8}, data), {"\"b\"", "offset 0"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {9}, data), {"\"t\"", "truncated"});
  refuses_gguf(tiny_gguf().tensor("t", 0, {uint64_t{1} << 60}, data), {"\"t\"", "truncated"});
  GgufBuilder tail = tiny_gguf().tensor("t", 0, {8}, data);
  tail.tail = "x";
  refuses_gguf(tail, {"1 bytes after its last tensor"});
  GgufBuilder more = tiny_gguf().tensor("t", 0, {8}, data);
  more.extra_tensors = 1;
  refuses_gguf(more, {});
}

TEST_CASE("malformed gguf: other architectures, split files and unusable q and k are refused") {
  const std::string data(128, '\0');
  refuses_gguf(GgufBuilder().u32("llama.block_count", 1), {"general.architecture", "missing"});
  refuses_gguf(GgufBuilder().u32("general.architecture", 1), {"general.architecture"});
  refuses_gguf(GgufBuilder().text("general.architecture", "gemma\n2"), {"gemma\\x0a2", "llama"});
  refuses_gguf(tiny_gguf().key("split.count", 2, raw<uint16_t>(3)), {"split.count", "merge"});
  const GgufBuilder bare = GgufBuilder().text("general.architecture", "llama");
  GgufBuilder no_heads = bare;
  refuses_gguf(no_heads.tensor("blk.0.attn_q.weight", 0, {8, 4}, data),
               {"llama.embedding_length", "missing"});
  GgufBuilder zero_heads = bare;
  zero_heads.u32("llama.embedding_length", 8).u32("llama.attention.head_count", 0);
  refuses_gguf(zero_heads.tensor("blk.0.attn_k.weight", 0, {8, 4}, data),
               {"llama.attention.head_count"});
  refuses_gguf(tiny_gguf().tensor("blk.0.attn_q.weight", 0, {6, 4}, data.substr(32)),
               {"blk.0.attn_q.weight", "[6, 4]"});
  GgufBuilder odd = tiny_gguf().u32("llama.attention.key_length", 3);
  refuses_gguf(odd.tensor("blk.0.attn_k.bias", 0, {4}, data.substr(112)),
               {"blk.0.attn_k.bias", "3"});
}

TEST_CASE("malformed files: truncated at any byte, a model is refused") {
  TempDir dir;
  dir.write("config.json", tiny_config().dump());
  const std::string safetensors = small_safetensors();
  for (size_t length = 0; length < safetensors.size(); ++length) {
    dir.write("model.safetensors", safetensors.substr(0, length));
    INFO("safetensors cut at " << length);
    CHECK_THROWS_AS(touch(dir.path()), InputError);
  }
  const std::string gguf = small_gguf();
  const size_t last_tensor_end = gguf.size() - 28;  // the padding after it may be missing
  for (size_t length = 0; length < last_tensor_end; ++length) {
    INFO("gguf cut at " << length);
    CHECK_THROWS_AS(touch(dir.write("model.gguf", gguf.substr(0, length))), InputError);
  }
  CHECK_NOTHROW(touch(dir.write("model.gguf", gguf.substr(0, last_tensor_end))));
}

TEST_CASE("malformed files: with any byte of the header changed, a model opens or is refused") {
  TempDir dir;
  const std::string config = tiny_config().dump();
  const std::string safetensors = small_safetensors();
  const std::string gguf = small_gguf();
  size_t opened = 0, refused = 0;
  const auto try_changes = [&](const std::string& content, size_t header, auto write) {
    for (size_t i = 0; i < header; ++i)
      for (const unsigned char change : {0x01, 0x04, 0x20, 0x80, 0xff}) {
        std::string changed = content;
        changed[i] = static_cast<char>(changed[i] ^ change);
        (opens_or_refuses(write(changed)) ? opened : refused)++;
      }
  };
  dir.write("config.json", config);
  try_changes(safetensors, safetensors.size() - 40, [&](const std::string& changed) {
    dir.write("model.safetensors", changed);
    return dir.path();
  });
  try_changes(gguf, gguf.size() - 256 - 32 - 96,
              [&](const std::string& changed) { return dir.write("model.gguf", changed); });
  std::filesystem::remove(dir.path() / "model.safetensors");
  try_changes(config, config.size(), [&](const std::string& changed) {
    dir.write("config.json", changed);
    return dir.path();
  });
  CHECK(opened > 0);
  CHECK(refused > opened);
}
