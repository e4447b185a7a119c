// Everything that runs in several threads, once: for ThreadSanitizer, under which whole tests take too long.

#include <numeric>

#include "base/threads.h"
#include "checkpoint_builder.h"
#include "eval/eval.h"
#include "sinkref/forward.h"
#include "sinkref/interventions.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const std::vector<Neurons> neurons = {{0, {3, 17}}, {1, {5}}};

/// What a run shows and gives, in `threads`.
template <class T>
std::vector<double> results(const Model& model, size_t threads) {
  set_thread_count(threads);
  std::vector<double> all;
  Hooks<T> hooks;
  add_patch(neurons, hooks);
  for (const Hook hook : all_hooks(model.config().layers))
    hooks.add(hook, [&all](const Activation<T>& a) {
      for (size_t r = 0; r < a.rows.size(); ++r) all.push_back(std::accumulate(a.row(r), a.row(r) + a.width, 0.0));
    });
  std::vector<int> tokens(40, 7);
  tokens[0] = 1;
  RunOptions options;
  options.chunk = 16;
  run(model, options, {tokens, {1, 5, 9}}, hooks);
  Forward<T> forward(model, options);
  Hooks<T> none;
  for (const int id : generate(forward, forward.start({1, 5, 9}), 4, none)) all.push_back(id);
  set_thread_count(0);
  return all;
}

std::vector<double> scores(const Model& model, size_t threads) {
  set_thread_count(threads);
  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(model.checkpoint());
  std::vector<std::vector<EvalRequest>> requests;
  EvalItem item;
  item.choices = {" is here", " was"};
  for (const char* context : {"The answer", "The answer to it", "Another"}) {
    item.context = context;
    requests.push_back(encode_item(item, *tokenizer, BosPolicy::automatic, model.config().max_positions));
  }
  EvalScorer<float> scorer(model, {}, neurons, {});
  std::vector<double> all;
  for (const EvalScore& score : scorer.score(requests)) all.insert(all.end(), score.ll.begin(), score.ll.end());
  set_thread_count(0);
  return all;
}

}  // namespace

TEST_CASE("forward pass, hooks, patch, decode and eval give the same in several threads as in one", "[races]") {
  for (const char* name : {"tiny_llama3", "tiny_mistral"}) {
    const Model model = Model::open(outputs + name);
    const std::vector<double> one = results<float>(model, 1), truth = results<double>(model, 1);
    for (const size_t threads : {2, 5}) {
      CHECK(results<float>(model, threads) == one);
      CHECK(results<double>(model, threads) == truth);
    }
  }
  const Model model = Model::open(outputs + "tiny_llama3");
  CHECK(scores(model, 3) == scores(model, 1));
}
