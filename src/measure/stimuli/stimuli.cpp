#include "measure/stimuli/stimuli.h"

#include <algorithm>

#include "measure/definitions/sink_metric.h"
#include "measure/stimuli/common_words.h"
#include "measure/stimuli/perplexity_texts.h"
#include "measure/stimuli/sample_texts.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

using Condition = Stimuli::Condition;

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

Bos bos_of(BosPolicy policy, const Model& model, const Tokenizer* tokenizer) {
  std::optional<int> id = model.config().bos_id;
  if (tokenizer != nullptr && tokenizer->bos_id()) id = tokenizer->bos_id();
  if (!id || policy == BosPolicy::off) return {};
  const bool by_default = tokenizer == nullptr || tokenizer->adds_bos();
  return {{*id}, policy == BosPolicy::on || by_default};
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

Stimuli from_text(const StimulusChoice& choice, const Model& model) {
  Stimuli stimuli;
  stimuli.tokenizer = Tokenizer::open(model.checkpoint());
  const Tokenizer& tokenizer = *stimuli.tokenizer;
  const Bos bos = bos_of(choice.bos, model, &tokenizer);
  stimuli.samples.push_back({"text", {}});
  for (const char* text : sample_texts)
    stimuli.samples[0].tokens.push_back(tokenizer.encode(text, choice.bos));
  stimuli.sink.text = stimuli.samples[0].tokens[0];
  stimuli.sink.lone = {stimuli.sink.text.at(0)};  // the BOS token where there is one
  const std::vector<int> request =
      tokenizer.encode(choice.prefix.value_or(default_request), BosPolicy::off);
  stimuli.conditions = conditions_of(bos, request, choice.prefix && !choice.prefix->empty());
  std::vector<std::string> words = choice.words;
  if (words.empty()) words.assign(std::begin(default_words), std::end(default_words));
  for (const std::string& word : words)
    stimuli.sink.words.push_back({word, {}, word_token(tokenizer, word)});
  stimuli.samples.push_back({"repeated", {}});
  stimuli.samples.push_back({"random", random_tokens(model, bos.wanted ? bos.ids : std::vector<int>())});
  return stimuli;
}

Stimuli from_ids(const StimulusChoice& choice, const Model& model, const std::vector<int>& ids) {
  Stimuli stimuli;
  const Bos bos = bos_of(choice.bos, model, nullptr);
  stimuli.sink.text = ids;
  stimuli.sink.lone = bos.wanted ? bos.ids : std::vector<int>{ids.at(0)};
  stimuli.conditions = {{bos.wanted ? "BOS" : "first token", stimuli.sink.lone, true, 0},
                        {"nothing", {}, false, 0}};
  // A run of the first token itself, after itself, would have nothing before it.
  const auto add = [&](int id) {
    const auto same = [&](const SinkInputs::Word& w) { return w.token == id; };
    std::vector<SinkInputs::Word>& words = stimuli.sink.words;
    if (words.size() < std::size(default_words) && std::none_of(words.begin(), words.end(), same))
      words.push_back({"#" + std::to_string(id), {}, id});
  };
  for (int id : ids)
    if (id != stimuli.sink.lone[0]) add(id);
  if (stimuli.sink.words.empty()) add(ids[0]);
  stimuli.samples = {{"text", {ids}},
                     {"repeated", {}},
                     {"random", random_tokens(model, bos.wanted ? bos.ids : std::vector<int>())}};
  return stimuli;
}

/// Some ids, evenly spread.
std::vector<int> ids_of_vocabulary(const Model& model) {
  std::vector<int> ids;
  for (size_t i = 0; i < sink_length; ++i)
    ids.push_back(static_cast<int>((2 * i + 1) * model.config().vocab_size / (2 * sink_length)));
  return ids;
}

/// Lengths within the model's context.
void set_lengths(const StimulusChoice& choice, const Model& model, Stimuli& stimuli) {
  const size_t repeats = choice.repeats;
  const size_t limit = model.config().max_positions;
  stimuli.sink.text.resize(std::min(stimuli.sink.text.size(), limit));
  for (Stimuli::Samples& samples : stimuli.samples)
    for (std::vector<int>& sample : samples.tokens) sample.resize(std::min(sample.size(), limit));
  size_t longest = 0;
  for (const Condition& condition : stimuli.conditions)
    longest = std::max(longest, condition.prefix.size());
  if (longest + repeats > limit && (choice.repeats_given || longest >= limit))
    throw InputError("--repeats " + std::to_string(repeats) + " with its prefix is " +
                     std::to_string(longest + repeats) + " tokens, the model's limit is " +
                     std::to_string(limit) + "; ask for fewer");
  stimuli.sink.repeats = std::min(repeats, limit - longest);
  for (Condition& condition : stimuli.conditions) condition.repeats = stimuli.sink.repeats;
  for (size_t i = 1; i < stimuli.conditions.size(); ++i)
    if (stimuli.conditions[i].prefix.empty())
      stimuli.conditions[i].repeats = std::min(stimuli.sink.repeats, repeats_after_nothing);
}

}  // namespace

int word_token(const Tokenizer& tokenizer, const std::string& word) {
  const std::vector<int> ids = tokenizer.encode("the " + word, BosPolicy::off);
  if (word.empty() || ids.empty()) throw InputError("--word: is empty; expected a word");
  return ids.back();
}

Stimuli stimuli_for(const Model& model, const StimulusChoice& choice) {
  Stimuli stimuli =
      choice.ids ? from_ids(choice, model, *choice.ids) : from_text(choice, model);
  stimuli.bos = choice.bos;
  set_lengths(choice, model, stimuli);
  for (SinkInputs::Word& word : stimuli.sink.words) {
    word.prefix = stimuli.usual().prefix;
    std::vector<int> sample =
        stimuli.usual().name.starts_with("BOS") ? stimuli.sink.lone : std::vector<int>();
    sample.resize(std::min(sink_length, model.config().max_positions), word.token);
    stimuli.samples[1].tokens.push_back(std::move(sample));
  }
  return stimuli;
}

SinkInputs ordinary_text(const Model& model, const StimulusChoice& choice, bool ids_will_do) {
  Stimuli stimuli;
  try {
    stimuli = from_text(choice, model);
  } catch (const InputError&) {
    if (!ids_will_do) throw;
    stimuli = from_ids(choice, model, ids_of_vocabulary(model));
  }
  stimuli.sink.text.resize(std::min(stimuli.sink.text.size(), model.config().max_positions));
  return stimuli.sink;
}

std::vector<std::vector<int>> perplexity_pieces(const Model& model, const Stimuli& stimuli) {
  std::vector<std::vector<int>> pieces;
  if (stimuli.tokenizer) {
    for (const char* text : perplexity_texts)
      pieces.push_back(stimuli.tokenizer->encode(text, stimuli.bos));
  } else {
    pieces.push_back(stimuli.sink.text);
  }
  for (std::vector<int>& piece : pieces)
    piece.resize(std::min(piece.size(), model.config().max_positions));
  return pieces;
}

std::vector<int> common_tokens(const Model& model, const Stimuli& stimuli) {
  if (!stimuli.tokenizer) return ordinary_ids(model, nullptr);
  std::vector<int> tokens;
  std::string_view words = common_words;
  while (!words.empty()) {
    const size_t end = std::min(words.find(' '), words.size());
    // As it stands inside a text; of a word of several tokens the last.
    const std::vector<int> ids =
        stimuli.tokenizer->encode("the " + std::string(words.substr(0, end)), BosPolicy::off);
    if (!ids.empty()) tokens.push_back(ids.back());
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return tokens;
}

std::vector<int> ordinary_ids(const Model& model, const Tokenizer* tokenizer) {
  const ModelConfig& c = model.config();
  std::vector<int> ids;
  const size_t known = tokenizer ? std::min(c.vocab_size, tokenizer->vocab_size()) : c.vocab_size;
  for (size_t i = 0; i < known; ++i) {
    const int id = static_cast<int>(i);
    if (id == c.bos_id || std::find(c.eos_ids.begin(), c.eos_ids.end(), id) != c.eos_ids.end())
      continue;
    if (tokenizer) {
      const std::string piece = tokenizer->piece(id);
      if (piece.empty() || (piece.size() > 2 && piece.front() == '<' && piece.back() == '>')) continue;
    }
    ids.push_back(id);
  }
  return ids;
}

}  // namespace sinkref
