// Arbitrary bytes to every reader of what somebody else wrote. The program's own name chooses the reader:
// fuzz_gguf feeds GGUF files. An InputError is an answer; any other exception, a sanitizer's report, or
// more time or memory than tools/fuzz.sh allows is a finding.

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_file.h"
#include "base/threads.h"
#include "cli/ids.h"
#include "cli/shared_options.h"
#include "eval/eval.h"
#include "eval/samples.h"
#include "sinkref/error.h"
#include "sinkref/model.h"
#include "sinkref/tiny_model.h"
#include "sinkref/trace.h"
#include "sinkref/verify.h"
#include "verify/candidate.h"
#include "verify/golden.h"
#include "verify/golden_file.h"

namespace {

using namespace sinkref;
namespace fs = std::filesystem;

/// A folder of this process, gone with it.
const fs::path& folder() {
  static const fs::path path = [] {
    std::string name = (fs::temp_directory_path() / "sinkref-fuzz-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    return fs::path(name);
  }();
  static const int once = std::atexit([] { fs::remove_all(path); });
  static_cast<void>(once);
  return path;
}

fs::path write(const std::string& name, std::string_view bytes) {
  const fs::path path = folder() / name;
  fs::create_directories(path.parent_path());
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

/// Several files in one input stand between bytes 0xFF, which no UTF-8 holds.
std::vector<std::string_view> parts_of(std::string_view input, size_t count) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; parts.size() + 1 < count;) {
    const size_t end = std::min(input.find('\xFF', begin), input.size());
    parts.push_back(input.substr(begin, end - begin));
    begin = std::min(end + 1, input.size());
    if (parts.size() + 1 == count) parts.push_back(input.substr(begin));
  }
  return parts;
}

const Model& tiny() {
  static const Model model = Model::open(tiny_model());
  return model;
}

const Tokenizer& tiny_tokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(tiny().checkpoint());
  return *tokenizer;
}

constexpr const char* small_config =
    R"({"model_type": "llama", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 64})";

/// Every value of every tensor, as the weights of a model and by themselves.
void read_weights(const fs::path& path) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!tensor.unsupported_dtype.empty() || tensor.shape.empty() || tensor.shape.size() > 2) continue;
    const StoredMatrix matrix = checkpoint.matrix(name, tensor.shape);
    for (size_t r = 0; r < matrix.rows; ++r) widen_row(matrix, r);
  }
  const Model model(checkpoint);
  for (size_t layer = 0; layer < model.config().layers; ++layer) model.layer(layer);
}

void read_tokenizer(const fs::path& path) {
  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(Checkpoint::open(path));
  for (const char* text : {"", "the the  the\tred", "<s>[INST] é漢字\n12345 </s>", "  x  ", "'s Hello<unk>\u2581"}) {
    std::vector<int> ids;
    try {
      ids = tokenizer->encode(text);
    } catch (const InputError&) {  // a text that this vocabulary cannot spell
    }
    tokenizer->least_ids(text);
    tokenizer->decode(ids);
    for (const int id : ids) tokenizer->piece(id);
  }
  tokenizer->description();
}

void safetensors(std::string_view input) {
  write("model/config.json", small_config);
  write("model/model.safetensors", input);
  read_weights(folder() / "model");
}

void index(std::string_view input) {
  static const auto shard = [](const char* name) {
    const std::string header = std::string("{\"") + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    const uint64_t size = header.size();
    return std::string(reinterpret_cast<const char*>(&size), 8) + header + "1234";
  };
  write("sharded/config.json", small_config);
  write("sharded/a.safetensors", shard("a"));
  write("sharded/b.safetensors", shard("b"));
  write("sharded/model.safetensors.index.json", input);
  read_weights(folder() / "sharded");
}

void gguf(std::string_view input) {
  const fs::path path = write("model.gguf", input);
  try {
    read_weights(path);
  } catch (const InputError&) {  // the vocabulary may be whole all the same
  }
  read_tokenizer(path);
  tokenizer_sha256(Checkpoint::open(path));
}

void config(std::string_view input) {
  write("config/config.json", input);
  read_config(Checkpoint::open(folder() / "config"));
}

void tokenizer_json(std::string_view input) {
  const auto parts = parts_of(input, 2);
  write("fast/config.json", R"({"model_type": "llama"})");
  write("fast/tokenizer.json", parts[0]);
  if (parts[1].empty()) fs::remove(folder() / "fast/tokenizer_config.json");
  else write("fast/tokenizer_config.json", parts[1]);
  read_tokenizer(folder() / "fast");
}

void tokenizer_settings(std::string_view input) {
  static const std::string model = read_text_file(tiny_model().parent_path() / "tiny_sentencepiece/tokenizer.model");
  const auto parts = parts_of(input, 3);
  write("pieces/config.json", R"({"model_type": "llama"})");
  write("pieces/tokenizer.model", model);
  const char* names[] = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"};
  for (size_t i = 0; i < 3; ++i) {
    if (parts[i].empty()) fs::remove(folder() / "pieces" / names[i]);
    else write(std::string("pieces/") + names[i], parts[i]);
  }
  read_tokenizer(folder() / "pieces");
}

void tokenizer_model(std::string_view input) {
  write("slow/config.json", R"({"model_type": "llama"})");
  write("slow/tokenizer.model", input);
  read_tokenizer(folder() / "slow");
}

/// A run of the model costs more than a hundred readings: one input in sixteen is run.
bool is_run(std::string_view input) {
  unsigned sum = 0;
  for (const char c : input) sum += static_cast<unsigned char>(c);
  return sum % 16 == 0;
}

void golden(std::string_view input) {
  const fs::path path = write("golden.safetensors", input);
  const GoldenFile read(path, tiny());
  if (is_run(input)) compare_with_golden(tiny(), "auto", path);
}

void candidate(std::string_view input) {
  const TraceFile file = TraceFile::open(write("candidate.safetensors", input));
  const ModelConfig& config = tiny().config();
  const Candidate read(file, config, "", std::nullopt);
  for (const Hook hook : read.hooks())
    for (size_t s = 0; s < read.tokens().size(); ++s)
      for (size_t p = 0; p < read.tokens()[s].size(); ++p) {
        size_t width = 1;
        for (const size_t extent : hook_shape(hook.point, config)) width *= extent;
        std::vector<double> row(is_attention(hook.point) ? p + 1 : width);  // no more than is to be written
        if (is_attention(hook.point)) read.attention_row(hook, s, config.heads - 1, p, p + 1, row.data());
        else read.row(hook, s, p, row.data());
      }
  VerifyOptions options;
  options.diagnose = false;
  if (is_run(input)) verify_candidate(tiny(), file, options);
}

void traces(std::string_view input) {
  static const TraceFile reference = [] {
    const fs::path path = folder() / "reference.safetensors";
    const std::vector<std::vector<int>> tokens = {{1, 5}};
    const std::vector<Hook> hooks = select_hooks("blocks.0.hook_resid_post,logits", tiny().config().layers);
    Hooks<float> all;
    TraceWriter<float> writer(path, true, tiny().config(), hooks, tokens,
                              trace_metadata(tiny(), tiny().config().layers, "fp32", Softmax::standard));
    writer.attach(all);
    run(tiny(), {}, tokens, all);
    writer.commit();
    return TraceFile::open(path);
  }();
  const TraceFile trace = TraceFile::open(write("trace.safetensors", input));
  Budget budget;
  budget.set("*", {{{0, 1e-6}}, {{0, 1e-6}}});
  for (const bool exact : {false, true}) {
    verify_traces(reference, trace, budget, exact);
    verify_traces(trace, trace, budget, exact);
  }
}

void budget(std::string_view input) {
  Budget::read(write("budget.json", input), tiny().config().layers).text({});
}

void run_json(std::string_view input) {
  const auto parts = parts_of(input, 4);
  const RunInfo info = {{"program", "sinkref"}, {"model", "m"}, {"shard", nullptr}, {"variants", {"original"}}};
  const fs::path own = write("samples.jsonl", parts[1]);
  write("samples.jsonl.run.json", parts[0]);
  write("shard1.jsonl", parts[3]);
  write("shard1.jsonl.run.json", parts[2]);
  try {
    std::vector<Sample> samples;
    merge_shards({own.string(), (folder() / "shard1.jsonl").string()}, samples);
  } catch (const InputError&) {  // it may still be one run's file
  }
  SampleFile(own, info, {{"t", "0"}, {"t", "1"}}, {"original"}, false);
  fs::rename(own, folder() / "samples.jsonl.partial");
  write("samples.jsonl.run.json", parts[0]);
  SampleFile(own, info, {{"t", "0"}, {"t", "1"}}, {"original"}, false);
}

void eval_items(std::string_view input) {
  const auto parts = parts_of(input, 2);
  const std::string data = write("items.jsonl", parts[0]).string();
  EvalSelection selection;
  if (!parts[1].empty()) selection.few_shot = write("few.jsonl", parts[1]).string();
  const EvalData read = read_eval_data({data}, selection);
  const std::vector<double> costs = eval_costs(read.items);
  for (size_t i = 0; i < 3; ++i) shard_range(costs, i, 3);
  for (const EvalItem& item : read.items) {
    item_metrics(item, std::vector<double>(item.choices.size(), -1));
    try {
      encode_item(item, tiny_tokenizer(), BosPolicy::automatic, tiny().config().max_positions);
    } catch (const InputError&) {  // this item cannot be asked; the next may
    }
  }
}

/// Every kind of option.
struct AnyCommand : cli::RunningCommand {
  std::vector<std::string> files, words;
  std::optional<std::string> out;
  std::optional<size_t> seed;
  bool force = false;

  cli::OptionTable table() override {
    return cli::joined({prompt_rows(), id_rows(), bos_row(), kernel_row(), precision_row(), chunk_row(), softmax_row(),
                        patch_row(), patch_site_row(), ablate_row(), cli::output_rows(out, force, "FILE", "a file"),
                        {{"files", cli::texts("FILE", files), "files", true},
                         {"word", cli::single_words("WORD", words), "a word"},
                         {"seed", cli::number(seed, 0), "a number"}}});
  }
  int run() const override { return 0; }
};

/// What stands on the command line. The first letter says what follows: ids, a file of them, hooks,
/// neurons, or a command's arguments, one a line.
void options(std::string_view input) {
  if (input.empty()) return;
  const std::string text(input.substr(1));
  switch (input[0]) {
    case 't': cli::parse_ids(text, "--tokens"); return;
    case 'f': cli::read_ids_file(write("tokens.json", text).string()); return;
    case 'h': select_hooks(text, tiny().config().layers); return;
    case 'n': neurons_text(parse_neurons(text, "--patch", tiny().config())); return;
    default: break;
  }
  std::vector<std::string> arguments;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    arguments.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  const cli::CommandRow row = {"any", "", "", [] { return std::unique_ptr<cli::Command>(new AnyCommand); }};
  std::vector<cli::CommandRow> all;
  all.push_back(row);
  cli::parse_command(row, all, arguments);
}

struct Reader {
  std::string_view name;
  void (*read)(std::string_view input);
};

// tools/fuzz.sh has its list of names from here.
constexpr Reader readers[] = {
    {"safetensors", safetensors},
    {"index", index},
    {"gguf", gguf},
    {"config", config},
    {"tokenizer_json", tokenizer_json},
    {"tokenizer_settings", tokenizer_settings},
    {"tokenizer_model", tokenizer_model},
    {"golden", golden},
    {"candidate", candidate},
    {"traces", traces},
    {"budget", budget},
    {"run_json", run_json},
    {"eval_items", eval_items},
    {"options", options},
};

const Reader* reader = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char*** argv) {
  const std::string program = fs::path((*argv)[0]).filename();
  for (const Reader& one : readers)
    if (program == "fuzz_" + std::string(one.name)) reader = &one;
  if (reader == nullptr) {
    std::fputs("Call this as fuzz_READER, by a link or a copy, where READER is one of\n", stderr);
    for (const Reader& one : readers) std::printf("%s\n", one.name.data());
    std::exit(2);
  }
  set_thread_count(1);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    reader->read({reinterpret_cast<const char*>(data), size});
  } catch (const InputError&) {
  }
  return 0;
}
