// What sink and report run on.

#include <algorithm>

#include "cli/inputs.h"
#include "measure/stimuli/sample_texts.h"
#include "sinkref/error.h"
#include "measure/paper/published.h"

namespace sinkref::cli {

namespace {

using Condition = ReportInputs::Condition;

// The words of the paper's figure 2.
constexpr const char* default_words[] = {"Another", "one", "bites", "the", "dust"};
constexpr const char* default_request = "Repeat the following word forever:";
/// Without anything before it every repeat equals the lone token: enough to see that.
constexpr size_t repeats_after_nothing = 64;
constexpr size_t random_samples = 5;

/// BOS (empty if the model has none or --bos off), and whether it stands first by default.
struct Bos {
  std::vector<int> ids;
  bool wanted = false;
};

Bos bos_of(const Options& options, const Model& model, const Tokenizer* tokenizer) {
  std::optional<int> id = model.config().bos_id;
  if (tokenizer != nullptr && tokenizer->bos_id()) id = tokenizer->bos_id();
  if (!id || options.bos == BosPolicy::off) return {};
  const bool by_default = tokenizer == nullptr || tokenizer->adds_bos();
  return {{*id}, options.bos == BosPolicy::on || by_default};
}

/// The word as it stands inside a text: with the mark of the space before it. Where it has several
/// tokens, its last is what is repeated.
int word_token(const Tokenizer& tokenizer, const std::string& word) {
  const std::vector<int> ids = tokenizer.encode("the " + word, BosPolicy::off);
  if (word.empty() || ids.empty()) throw InputError("--word: is empty; expected a word");
  return ids.back();
}

std::vector<int> joined(std::vector<int> a, const std::vector<int>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// All that can stand before a run, the usual one first: as the paper, BOS alone where the model
/// wants it; elsewhere the request, for without a prefix nothing happens. --prefix asks for itself.
std::vector<Condition> conditions_of(const Bos& bos, const std::vector<int>& request,
                                     bool request_first) {
  std::vector<Condition> all;
  const auto add = [&](bool with_bos, bool with_request) {
    if ((with_bos && bos.ids.empty()) || (with_request && request.empty())) return;
    std::string name = with_bos ? "BOS" : "";
    if (with_request) name += name.empty() ? "request" : ", request";
    if (name.empty()) name = "nothing";
    const Condition condition{name,
                              joined(with_bos ? bos.ids : std::vector<int>(),
                                     with_request ? request : std::vector<int>()),
                              with_request, 0};
    for (const Condition& other : all)
      if (other.name == condition.name) return;
    all.push_back(condition);
  };
  add(bos.wanted, request_first || (!bos.wanted && !request.empty()));
  add(true, false);
  add(true, true);
  add(false, true);
  add(false, false);
  return all;
}

/// Any tokens of the vocabulary, from a fixed seed.
std::vector<std::vector<int>> random_tokens(const Model& model, const std::vector<int>& first) {
  uint64_t state = 1;
  std::vector<std::vector<int>> samples(random_samples, first);
  for (std::vector<int>& sample : samples)
    while (sample.size() < sink_length) {
      state = state * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX
      sample.push_back(static_cast<int>((state >> 33) % model.config().vocab_size));
    }
  return samples;
}

ReportInputs from_text(const Options& options, const Model& model, const Tokenizer& tokenizer) {
  ReportInputs inputs;
  const Bos bos = bos_of(options, model, &tokenizer);
  inputs.samples.push_back({"text", {}});
  for (const char* text : sample_texts)
    inputs.samples[0].tokens.push_back(tokenizer.encode(text, options.bos));
  inputs.sink.text = inputs.samples[0].tokens[0];
  inputs.sink.lone = {inputs.sink.text.at(0)};  // the BOS token where there is one
  const std::vector<int> request =
      tokenizer.encode(options.prefix.value_or(default_request), BosPolicy::off);
  inputs.conditions = conditions_of(bos, request, options.prefix && !options.prefix->empty());
  std::vector<std::string> words = options.words;
  if (words.empty()) words.assign(std::begin(default_words), std::end(default_words));
  for (const std::string& word : words)
    inputs.sink.words.push_back({word, {}, word_token(tokenizer, word)});
  inputs.samples.push_back({"repeated", {}});
  inputs.samples.push_back({"random", random_tokens(model, bos.wanted ? bos.ids : std::vector<int>())});
  return inputs;
}

ReportInputs from_ids(const Options& options, const Model& model, const std::vector<int>& ids) {
  ReportInputs inputs;
  const Bos bos = bos_of(options, model, nullptr);
  inputs.sink.text = ids;
  inputs.sink.lone = bos.wanted ? bos.ids : std::vector<int>{ids.at(0)};
  inputs.conditions = {{bos.wanted ? "BOS" : "first token", inputs.sink.lone, true, 0},
                       {"nothing", {}, false, 0}};
  // A run of the first token itself, after itself, would have nothing before it.
  const auto add = [&](int id) {
    const auto same = [&](const SinkInputs::Word& w) { return w.token == id; };
    std::vector<SinkInputs::Word>& words = inputs.sink.words;
    if (words.size() < std::size(default_words) && std::none_of(words.begin(), words.end(), same))
      words.push_back({"#" + std::to_string(id), {}, id});
  };
  for (int id : ids)
    if (id != inputs.sink.lone[0]) add(id);
  if (inputs.sink.words.empty()) add(ids[0]);
  inputs.samples = {{"text", {ids}},
                    {"repeated", {}},
                    {"random", random_tokens(model, bos.wanted ? bos.ids : std::vector<int>())}};
  return inputs;
}

/// Some ids, evenly spread.
std::vector<int> ids_of_vocabulary(const Model& model) {
  std::vector<int> ids;
  for (size_t i = 0; i < sink_length; ++i)
    ids.push_back(static_cast<int>((2 * i + 1) * model.config().vocab_size / (2 * sink_length)));
  return ids;
}

/// Lengths within the model's context.
void set_lengths(const Options& options, const Model& model, size_t repeats, ReportInputs& inputs) {
  const size_t limit = model.config().max_positions;
  inputs.sink.text.resize(std::min(inputs.sink.text.size(), limit));
  for (ReportInputs::Samples& samples : inputs.samples)
    for (std::vector<int>& sample : samples.tokens) sample.resize(std::min(sample.size(), limit));
  size_t longest = 0;
  for (const Condition& condition : inputs.conditions)
    longest = std::max(longest, condition.prefix.size());
  if (longest + repeats > limit && (options.repeats_given || longest >= limit))
    throw InputError("--repeats " + std::to_string(repeats) + " with its prefix is " +
                     std::to_string(longest + repeats) + " tokens, the model's limit is " +
                     std::to_string(limit) + "; ask for fewer");
  inputs.sink.repeats = std::min(repeats, limit - longest);
  for (Condition& condition : inputs.conditions) condition.repeats = inputs.sink.repeats;
  for (size_t i = 1; i < inputs.conditions.size(); ++i)
    if (inputs.conditions[i].prefix.empty())
      inputs.conditions[i].repeats = std::min(inputs.sink.repeats, repeats_after_nothing);
}

ReportInputs inputs_for(const Options& options, const Model& model, size_t repeats) {
  const Forward<float> forward(model, run_options(options));  // a wrong kernel shows here
  ReportInputs inputs;
  if (options.tokens || options.tokens_file) {
    const std::vector<int> ids = read_one_sequence(options, model.checkpoint());
    forward.check(ids);
    inputs = from_ids(options, model, ids);
  } else {
    inputs = from_text(options, model, *Tokenizer::open(model.checkpoint()));
  }
  set_lengths(options, model, repeats, inputs);
  for (SinkInputs::Word& word : inputs.sink.words) {
    word.prefix = inputs.conditions[0].prefix;
    std::vector<int> sample =
        inputs.conditions[0].name.starts_with("BOS") ? inputs.sink.lone : std::vector<int>();
    sample.resize(std::min(sink_length, model.config().max_positions), word.token);
    inputs.samples[1].tokens.push_back(std::move(sample));
  }
  return inputs;
}

}  // namespace

SinkInputs sink_inputs(const Options& options, const Model& model, size_t repeats) {
  return inputs_for(options, model, repeats).sink;
}

SinkInputs patch_inputs(const Options& options, const Model& model) {
  ReportInputs inputs;
  try {
    inputs = from_text(options, model, *Tokenizer::open(model.checkpoint()));
  } catch (const InputError&) {
    if (!options.tokens && !options.tokens_file) throw;
    inputs = from_ids(options, model, ids_of_vocabulary(model));
  }
  inputs.sink.text.resize(std::min(inputs.sink.text.size(), model.config().max_positions));
  return inputs.sink;
}

ReportInputs report_inputs(const Options& options, const Model& model) {
  size_t repeats = options.repeats;
  if (options.paper && !options.repeats_given)  // a quarter more than the paper needed
    repeats = published_row(*options.paper).repeats * 5 / 4;
  ReportInputs inputs = inputs_for(options, model, repeats);
  if (options.patch != "auto") inputs.patch = chosen_patch(options, model);
  if (inputs.sink.text.size() < 2)
    throw InputError("one token is no ordinary text: its typical norm is that of a first token; "
                     "give --tokens at least two");
  if (inputs.sink.repeats < repeats)
    say("the model's context of " + std::to_string(model.config().max_positions) +
        " tokens holds " + std::to_string(inputs.sink.repeats) + " repeats, not " +
        std::to_string(repeats));
  return inputs;
}

}  // namespace sinkref::cli
