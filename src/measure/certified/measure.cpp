#include <charconv>

#include "base/progress.h"
#include "certify/certify.h"
#include "certify/cost.h"
#include "measure/certified/panel.h"

namespace sinkref {

namespace {

constexpr double work_of_a_second = 2e10;  // multiply-adds of a core meanwhile (model/work.h)

/// The shortest decimal that is read as this double.
std::string decimal(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

/// "blocks.2.hook_resid_post[0]"
std::string tensor(HookPoint point, size_t layer, const std::string& range) {
  return hook_name({point, layer}) + "[" + range + "]";
}

/// What is to be proved, and on what.
struct Question {
  CertifiedRun run;
  std::string claims;
};

/// find_sinks()' first two comparisons, on ordinary text, whose first token is the lone token by causality.
Question sink_question(const Experiment& e, const SinkLayer& sink) {
  const SinkInputs& inputs = e.stimuli.sink;
  Question question{{"sink", sink.layer, inputs.text, {}, {}, {}, 0, {}}, {}};
  if (inputs.text[0] != inputs.lone[0]) {
    question.run.left_out = "the text does not begin with the lone token, so that no one prompt holds both";
    return question;
  }
  const auto typical = [&](HookPoint point) {
    return "sum(norms(" + tensor(point, sink.layer, "1:") + ")) / " + std::to_string(inputs.text.size() - 1);
  };
  question.claims =
      "norm(" + tensor(HookPoint::MlpOut, sink.layer, "0") + ") > " + decimal(massive_ratio) + " * " +
      typical(HookPoint::MlpOut) + "\n" + decimal(raised_below) + " * norm(" +
      tensor(HookPoint::ResidPost, sink.layer, "0") + ") > " + typical(HookPoint::ResidPost) + "\n";
  return question;
}

/// Its causal check: without the neurons the lone token's norms are below their shares.
Question neurons_question(const Experiment& e, const SinkLayer& sink) {
  const auto below = [&](double share, HookPoint point) {
    const std::string first = tensor(point, sink.layer, "0");
    return "norm(" + first + ") < " + decimal(share) + " * norm(original:" + first + ")\n";
  };
  return {{"neurons", sink.layer, e.stimuli.sink.lone, {}, {{sink.layer, sink.neurons}}, {}, 0, {}},
          below(collapsed_below, HookPoint::MlpOut) + below(raised_below, HookPoint::ResidPost)};
}

/// The run of the word that sets the sink off with the fewest repeats, up to there.
struct Firing {
  const SinkInputs::Word* word = nullptr;
  size_t count = 0;
};
Firing first_firing(const Experiment& e, const Results& results, const SinkLayer& sink) {
  Firing first;
  for (const SinkInputs::Word& word : e.stimuli.sink.words) {
    const RepeatRun* run = results.run_of(word.text, e.stimuli.usual().name, false);
    const size_t count = run == nullptr ? 0 : repeats_to_fire(sink, run->norms[sink.layer]);
    if (count > 0 && (first.count == 0 || count < first.count)) first = {&word, count};
  }
  return first;
}

/// It is set off by the last repeat and by none before; and with the patch as it was measured.
std::vector<Question> repeats_questions(const Experiment& e, const Results& results, const SinkLayer& sink) {
  const Firing firing = first_firing(e, results, sink);
  if (firing.count == 0) return {};
  std::vector<int> tokens = e.stimuli.usual().prefix;
  const std::string begin = std::to_string(tokens.size());
  tokens.insert(tokens.end(), firing.count, firing.word->token);
  const std::string last = std::to_string(tokens.size() - 1), level = decimal(sink.fires_above());
  const std::string fires = "norm(" + tensor(HookPoint::ResidPost, sink.layer, last) + ") > " + level + "\n";
  const auto silent = [&](const std::string& range) {
    return "norms(" + tensor(HookPoint::ResidPost, sink.layer, range) + ") < " + level + "\n";
  };
  std::vector<Question> questions = {
      {{"repeats", sink.layer, tokens, {}, {}, {}, 0, {}}, fires + (firing.count > 1 ? silent(begin + ":" + last) : "")}};
  const RepeatRun* patched = results.run_of(firing.word->text, e.stimuli.usual().name, true);
  if (patched == nullptr) return questions;
  const size_t still = repeats_to_fire(sink, patched->norms[sink.layer]);
  if (still > 0 && still < firing.count) return questions;  // sooner than without: the patch prevents nothing here
  questions.push_back({{"patch", sink.layer, tokens, results.patch, {}, {}, 0, {}},
                       still == firing.count ? fires : silent(begin + ":")});
  return questions;
}

std::vector<Question> questions_of(const Experiment& e, const Results& results) {
  std::vector<Question> all;
  for (const SinkLayer& sink : results.sinks) {
    all.push_back(sink_question(e, sink));
    all.push_back(neurons_question(e, sink));
    for (Question& question : repeats_questions(e, results, sink)) all.push_back(std::move(question));
  }
  return all;
}

CertifyRequest request_of(const Experiment& e, const Question& question) {
  CertifyRequest request;
  request.tokens = question.run.tokens;
  request.softmax = e.run.softmax;
  request.kernel = e.run.kernel;
  request.patch = question.run.patch;
  request.ablation = question.run.ablation;
  request.claims = question.claims;
  request.claims_file = "--certify";
  return request;
}

std::string too_much_for_a_report(const CertifyCost& cost) {
  const auto number = [](double x) { return std::to_string(static_cast<long>(x)); };
  if (cost.processor_seconds > most_proof_seconds)
    return "the proof would take about " + number(cost.processor_seconds) + " s of processor time, at most " +
           number(most_proof_seconds) + " are given to one";
  if (cost.bytes > most_proof_bytes)
    return "the proof would take about " + number(cost.bytes / 1e6) + " MB, at most " + number(most_proof_bytes / 1e6) +
           " are given to one";
  return {};
}

}  // namespace

double certified_work(const Experiment& e, const Results& results) {
  if (!e.prover) return 0;
  double work = 0;
  for (const Question& question : questions_of(e, results)) {
    const CertifyCost cost = e.prover.cost(request_of(e, question));
    if (question.run.left_out.empty() && too_much_for_a_report(cost).empty()) work += cost.processor_seconds * work_of_a_second;
  }
  return work;
}

void measure_certified(const Experiment& e, Results& results) {
  if (!e.prover) return;
  CertifiedClaims certified;
  for (Question& question : questions_of(e, results)) {
    CertifiedRun& run = question.run;
    CertifyRequest request = request_of(e, question);
    const CertifyCost cost = e.prover.cost(request);
    if (run.left_out.empty()) run.left_out = too_much_for_a_report(cost);
    if (run.left_out.empty()) {
      e.progress->step("proofs: " + run.about + ", layer " + std::to_string(run.layer),
                       cost.processor_seconds * work_of_a_second);
      request.progress = [&](double share, const std::string&) { e.progress->share(share); };
      const Certificate certificate = e.prover.certify(request);
      run.bits = certificate.bits;
      run.claims = certificate.claims;
    }
    certified.runs.push_back(std::move(run));
  }
  results.put(std::move(certified));
}

}  // namespace sinkref
