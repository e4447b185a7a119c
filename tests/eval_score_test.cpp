// Log-likelihoods: sharing prefixes and batching change no bit, the patch included; and what is
// asked is what lm-eval asks.

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <limits>
#include <random>

#include "arithmetic/log_softmax.h"
#include "checkpoint_builder.h"
#include "eval/eval.h"
#include "sinkref/error.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const std::string items_file = outputs + "eval/items.jsonl";

struct Tiny {
  Model model = Model::open(outputs + "tiny_llama3");
  std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(model.checkpoint());
  std::vector<EvalItem> items = read_eval_data({items_file}, {}).items;
  std::vector<std::vector<EvalRequest>> requests(size_t max_positions) const {
    std::vector<std::vector<EvalRequest>> all;
    for (const EvalItem& item : items)
      all.push_back(encode_item(item, *tokenizer, BosPolicy::automatic, max_positions));
    return all;
  }
};

/// One request on its own, the whole sequence in one prefill.
double plain_ll(const Model& model, const EvalRequest& request, const std::vector<Neurons>& patch,
                bool& greedy) {
  RunOptions options;
  options.kernel = "spec";
  options.chunk = request.tokens.size();
  Forward<float> forward(model, options);
  Hooks<float> hooks;
  add_patch(patch, hooks);
  double ll = 0;
  greedy = true;
  hooks.add({HookPoint::Logits, 0}, [&](const Activation<float>& a) {
    for (size_t r = request.from - 1; r < a.rows.size(); ++r) {
      const auto token = static_cast<size_t>(request.tokens[r + 1]);
      const double logit = a.row(r)[token];
      const LogSoftmax s = log_softmax<float>(find_kernels<float>("spec"), {a.row(r), a.width});
      ll += s.at(logit);
      greedy = greedy && s.argmax == token;
    }
  });
  std::vector<Sequence<float>> batch;
  batch.push_back(forward.start({request.tokens.begin(), request.tokens.end() - 1}));
  forward.run(batch, hooks);
  return ll;
}

void check_scores(const std::vector<std::vector<EvalScore>>& batches,
                  const std::vector<EvalScore>& expected) {
  size_t i = 0, different = 0;
  for (const std::vector<EvalScore>& batch : batches)
    for (const EvalScore& score : batch) {
      different += score.ll != expected[i].ll || score.greedy != expected[i].greedy;
      ++i;
    }
  CHECK(i == expected.size());
  CHECK(different == 0);
}

}  // namespace

TEST_CASE("eval: batches and shared prefixes change no bit, original and patched", "[eval]") {
  const Tiny tiny;
  // Few positions: long contexts lose their beginning, and nothing is shared between some requests.
  for (size_t max_positions : {size_t{200}, tiny.model.config().max_positions}) {
    const auto requests = tiny.requests(max_positions);
    for (const std::vector<Neurons>& patch :
         {std::vector<Neurons>{}, std::vector<Neurons>{{0, {3, 17}}, {1, {5}}}}) {
      std::vector<EvalScore> expected;
      for (const auto& item : requests) {
        EvalScore score;
        for (const EvalRequest& request : item) {
          bool greedy = false;
          score.ll.push_back(plain_ll(tiny.model, request, patch, greedy));
          score.greedy.push_back(greedy);
        }
        expected.push_back(score);
      }
      for (size_t size : {size_t{1}, size_t{4}, requests.size()})
        for (size_t chunk : {size_t{512}, size_t{7}}) {
          RunOptions options;
          options.chunk = chunk;
          EvalScorer<float> scorer(tiny.model, options, patch, {});
          std::vector<std::vector<EvalScore>> batches;
          for (size_t i = 0; i < requests.size(); i += size)
            batches.push_back(scorer.score(
                {requests.begin() + static_cast<long>(i),
                 requests.begin() + static_cast<long>(std::min(i + size, requests.size()))}));
          INFO(max_positions << " positions, batches of " << size << ", chunks of " << chunk
                             << (patch.empty() ? "" : ", patched"));
          check_scores(batches, expected);
        }
    }
  }
}

TEST_CASE("eval: the patch changes the scores, so the test above can see it", "[eval]") {
  const Tiny tiny;
  const auto requests = tiny.requests(tiny.model.config().max_positions);
  EvalScorer<float> original(tiny.model, {}, {}, {}), patched(tiny.model, {}, {{0, {3, 17}}}, {});
  const auto a = original.score(requests), b = patched.score(requests);
  size_t moved = 0;
  for (size_t i = 0; i < a.size(); ++i) moved += a[i].ll != b[i].ll;
  CHECK(moved == a.size());
}

TEST_CASE("eval: what is shared is run once", "[eval]") {
  const Tiny tiny;
  size_t rows = 0;
  std::vector<std::vector<EvalRequest>> requests;
  for (const auto& item : tiny.requests(tiny.model.config().max_positions)) {
    requests.push_back(item);
    for (const EvalRequest& request : item) rows += request.tokens.size() - 1;
  }
  EvalScorer<float> scorer(tiny.model, {}, {}, {});
  for (size_t i = 0; i < requests.size();) {
    const std::vector<std::vector<EvalRequest>> rest(requests.begin() + static_cast<long>(i),
                                                     requests.end());
    const size_t count = batch_items(rest);
    REQUIRE(count >= 1);
    scorer.score({rest.begin(), rest.begin() + static_cast<long>(count)});
    i += count;
  }
  CHECK(scorer.rows_run() * 2 < rows);

  // A batch is the tree of its beginnings: 40 tokens, 20 more that two items share, their own, and of
  // every choice all but its last token. The next batch begins where the last item does.
  const auto run = [](int from, size_t count) {
    std::vector<int> tokens(count);
    for (size_t i = 0; i < count; ++i) tokens[i] = from + static_cast<int>(i);
    return tokens;
  };
  const auto item_of = [](const std::vector<std::vector<int>>& parts) {
    std::vector<int> context;
    for (const auto& part : parts) context.insert(context.end(), part.begin(), part.end());
    std::vector<EvalRequest> choices(2, {context, context.size()});
    choices[0].tokens.insert(choices[0].tokens.end(), {8, 9});
    choices[1].tokens.insert(choices[1].tokens.end(), {10, 11, 12});
    return choices;
  };
  EvalScorer<float> tree(tiny.model, {}, {}, {});
  const size_t tails = 1 + 2;
  tree.score({item_of({run(100, 40), run(150, 20), run(1, 15)}), item_of({run(100, 40), run(20, 9)}),
              item_of({run(100, 40), run(150, 20), run(30, 15)})});
  CHECK(tree.rows_run() == 40 + 20 + 15 + 9 + 15 + 3 * tails);
  const size_t before = tree.rows_run();
  tree.score({item_of({run(100, 40), run(150, 20), run(60, 17)})});
  CHECK(tree.rows_run() - before == 17 + tails);

  // Four choices of one token cost what one costs.
  const std::vector<int> context = {5, 9, 2, 30, 7};
  std::vector<EvalRequest> item;
  for (int letter : {1, 2, 3, 4}) {
    item.push_back({context, context.size()});
    item.back().tokens.push_back(letter);
  }
  EvalScorer<float> other(tiny.model, {}, {}, {});
  other.score({item});
  CHECK(other.rows_run() == context.size());
}

TEST_CASE("eval: log_softmax against its definition in long double", "[eval]") {
  const Kernels<float>& kernels = find_kernels<float>("spec");
  std::mt19937 random(1);
  for (float spread : {0.0f, 1.0f, 30.0f, 500.0f})
    for (size_t n : {size_t{1}, size_t{2}, size_t{17}, size_t{49152}}) {
      std::uniform_real_distribution<float> value(-spread, spread);
      std::vector<float> logits(n);
      for (float& l : logits) l = spread == 0 ? 3.0f : value(random);
      const float largest = *std::max_element(logits.begin(), logits.end());
      long double sum = 0;
      for (float l : logits) sum += std::exp(static_cast<long double>(l) - largest);
      const std::vector<float> before = logits;
      const LogSoftmax s = log_softmax<float>(kernels, logits);
      double worst = 0;
      for (float l : before)
        worst = std::max(worst, std::fabs(s.at(l) - static_cast<double>(l - (largest + std::log(sum)))));
      // exp is good to 1 ulp (2^-23 of each term), 1/sum is rounded once (2^-24); of a value near
      // 1000 double keeps 2^-43.
      INFO("spread " << spread << ", " << n << " logits");
      CHECK(worst <= std::ldexp(1.0, -23) + std::ldexp(1.0, -24) + 1e-12);
      CHECK(before[s.argmax] == largest);
    }
}

TEST_CASE("eval: log_softmax leaves its row and the next one alone, vectors as the scalar text", "[eval]") {
  for (size_t vocabulary : {1, 15, 307, 320}) {  // few are whole vectors
    std::vector<float> logits(2 * vocabulary);
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
    const std::vector<float> before = logits;
    for (size_t row = 0; row < 2; ++row) {
      const std::span<const float> one = std::span(logits).subspan(row * vocabulary, vocabulary);
      const LogSoftmax fast = log_softmax<float>(find_kernels<float>("auto"), one);
      CHECK(logits == before);
      CHECK(fast.at(one[0]) == log_softmax<float>(find_kernels<float>("spec"), one).at(one[0]));
    }
  }
}

TEST_CASE("eval: natural_log is within 2 ulp", "[eval]") {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> exponent(-700, 700), near_one(0.5, 2);
  for (int i = 0; i < 20000; ++i) {
    const double x = i % 2 == 0 ? std::exp(exponent(random)) : near_one(random);
    const double expected = static_cast<double>(std::log(static_cast<long double>(x)));
    const double ulp = std::nextafter(std::fabs(expected), HUGE_VAL) - std::fabs(expected);
    INFO(x);
    CHECK(std::fabs(natural_log(x) - expected) <= 2 * ulp);
  }
  CHECK(natural_log(1.0) == 0.0);
}

TEST_CASE("eval: requests are lm-eval's", "[eval]") {
  const Tiny tiny;
  const auto encode = [&](const std::string& text) {
    return tiny.tokenizer->encode(text, BosPolicy::automatic);
  };
  EvalItem item;
  item.context = "The answer";
  item.choices = {" is here", " was"};
  const auto plain = encode_item(item, *tiny.tokenizer, BosPolicy::automatic, 512);
  CHECK(plain[0].tokens == encode("The answer is here"));
  CHECK(plain[0].from == encode("The answer").size());

  // Blanks at the end belong to the choice, whatever blanks they are.
  EvalItem moved = item;
  moved.context = "The answer \u00a0\n";
  const auto blank = encode_item(moved, *tiny.tokenizer, BosPolicy::automatic, 512);
  CHECK(blank[0].from == plain[0].from);
  CHECK(std::vector<int>(blank[0].tokens.begin(), blank[0].tokens.begin() + long(blank[0].from)) ==
        encode("The answer"));

  // The tokens before the boundary are the context's own, even where the whole text's differ.
  EvalItem split = item;
  split.context = "The ans";
  split.choices = {"wer"};
  const auto parts = encode_item(split, *tiny.tokenizer, BosPolicy::automatic, 512);
  const std::vector<int> own = encode("The ans");
  CHECK(std::vector<int>(parts[0].tokens.begin(), parts[0].tokens.begin() + long(own.size())) == own);

  // The last max_positions + 1 tokens are kept.
  const auto shortened = encode_item(item, *tiny.tokenizer, BosPolicy::automatic, 6);
  const std::vector<int> whole = encode("The answer is here");
  REQUIRE(whole.size() > 7);
  CHECK(shortened[0].tokens == std::vector<int>(whole.end() - 7, whole.end()));
  CHECK(shortened[0].from == plain[0].from - (whole.size() - 7));

  // No context: BOS stands for it, once.
  EvalItem empty = item;
  empty.context = "";
  const auto first = encode_item(empty, *tiny.tokenizer, BosPolicy::automatic, 512);
  CHECK(first[0].from == 1);
  CHECK(first[0].tokens[0] == *tiny.tokenizer->bos_id());
  CHECK(std::count(first[0].tokens.begin(), first[0].tokens.end(), first[0].tokens[0]) == 1);

  // A context that has BOS by itself gets no second one, whoever puts it there.
  const std::string bos = tiny.tokenizer->piece(*tiny.tokenizer->bos_id());
  EvalItem twice = item;
  twice.context = bos + item.context;
  for (const BosPolicy policy : {BosPolicy::automatic, BosPolicy::on, BosPolicy::off}) {
    const auto once = encode_item(twice, *tiny.tokenizer, policy, 512);
    CHECK(once[0].tokens == tiny.tokenizer->encode("The answer is here", BosPolicy::on));
    CHECK(once[0].from == tiny.tokenizer->encode("The answer", BosPolicy::on).size());
  }
  twice.context = bos + bos + item.context;
  CHECK(encode_item(twice, *tiny.tokenizer, BosPolicy::on, 512)[0].tokens[1] == *tiny.tokenizer->bos_id());

  // Texts that are far beyond the context are not tokenized first.
  for (const size_t positions : {1, 6, 512}) {
    EvalItem huge = item;
    huge.where = "file.jsonl:7";
    huge.context = std::string((positions + 1) * 1024, 'a');
    CHECK_THROWS_WITH(encode_item(huge, *tiny.tokenizer, BosPolicy::automatic, positions),
                      Catch::StartsWith("file.jsonl:7: a text of "));
    std::swap(huge.context, huge.choices[0]);
    CHECK_THROWS_WITH(encode_item(huge, *tiny.tokenizer, BosPolicy::automatic, positions),
                      Catch::StartsWith("file.jsonl:7: a text of "));
  }

  item.where = "file.jsonl:7";
  item.choices = {" a", " is here and there and everywhere"};
  CHECK_THROWS_WITH(encode_item(item, *tiny.tokenizer, BosPolicy::automatic, 6),
                    Catch::StartsWith("file.jsonl:7: choice 1 is "));
}

TEST_CASE("eval: metrics by hand", "[eval]") {
  EvalItem item;
  item.choices = {" aa", " b", " cccc"};
  item.gold = 2;
  item.norm_chars = {2, 1, 4};
  item.norm_bytes = {2, 1, 8};
  CHECK(item_metrics(item, {-4, -3, -6}) ==
        Metrics{{"acc", 0}, {"acc_norm", 1}, {"acc_bytes", 1}});
  CHECK(item_metrics(item, {-2, -2, -2})[0].second == 0);  // the first of equals wins
  item.gold = 0;
  CHECK(item_metrics(item, {-2, -2, -2})[0].second == 1);
  item.labels = {1, 0, 1};
  const Metrics mass = item_metrics(item, {std::log(0.2), std::log(0.3), std::log(0.1)});
  REQUIRE(mass.size() == 1);
  CHECK(mass[0].second == Approx(0.5).epsilon(1e-15));
  CHECK(item_metrics(item, {-2000, -2001, -2000})[0].second == Approx(2 / (2 + std::exp(-1.0))));
}

TEST_CASE("eval: errors of means, paired and pooled", "[eval]") {
  const std::vector<std::string> one(4, "");
  const Estimate e = estimate({1, 0, 0, 1}, one);
  CHECK(e.mean == 0.5);
  CHECK(*e.stderr_ == Approx(std::sqrt(1.0 / 3 / 4)).epsilon(1e-15));
  CHECK_FALSE(estimate({1}, {""}).stderr_);
  // lm-eval's pooled_sample_stderr: Σ (n-1)·se²·n / (N - groups), over N.
  const Estimate pooled = estimate({1, 0, 0, 1, 1}, {"a", "a", "b", "b", "b"});
  CHECK(*pooled.stderr_ == Approx(std::sqrt((0.5 + 2.0 / 3) / 3 / 5)).epsilon(1e-15));

  const Paired pair = paired({1, 1, 0, 0, 1, 1, 1}, {0, 0, 1, 0, 0, 0, 1}, std::vector<std::string>(7, ""));
  CHECK(pair.better == 1);
  CHECK(pair.worse == 4);
  CHECK(pair.difference.mean == Approx(-3.0 / 7));
  CHECK(*pair.p == Approx(2 * (1.0 + 5) / 32).epsilon(1e-13));
  CHECK(*paired({1, 0}, {1, 0}, {"", ""}).p == 1);
  CHECK_FALSE(paired({0.5, 0}, {1, 0}, {"", ""}).p);
  std::vector<double> zeros(3000), ones(3000, 1.0);
  CHECK(*paired(zeros, ones, std::vector<std::string>(3000)).p < 1e-300);
}

TEST_CASE("eval: shards cover the items once, in order, with about the same work", "[eval]") {
  const std::vector<double> costs = eval_costs(read_eval_data({items_file}, {}).items);
  const double all = std::accumulate(costs.begin(), costs.end(), 0.0);
  const double largest = *std::max_element(costs.begin(), costs.end());
  for (size_t count = 1; count < 60; ++count) {
    size_t next = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto [first, end] = shard_range(costs, i, count);
      CHECK(first == next);
      CHECK(end >= first);
      next = end;
      const double own = std::accumulate(costs.begin() + long(first), costs.begin() + long(end), 0.0);
      CHECK(own <= all / double(count) + largest + 1e-6);
    }
    CHECK(next == costs.size());
  }
}

TEST_CASE("eval: data that would fill the memory is refused, packed or not", "[eval]") {
  const TempDir folder;
  const auto packed = [&](const std::vector<std::pair<std::string, size_t>>& parts) {
    const std::filesystem::path path = folder.path() / "data.jsonl.gz";
    const gzFile file = gzopen(path.c_str(), "wb");
    for (const auto& [text, times] : parts)
      for (size_t i = 0; i < times; ++i) gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
    CHECK(std::filesystem::file_size(path) < size_t{1} << 20);
    return path.string();
  };
  const auto refused = [&](const std::string& file, const std::string& why) {
    CHECK_THROWS_WITH(read_eval_data({file}, {}), Catch::Contains(why));
  };
  const std::string begin = "{\"task\": \"t\", \"id\": \"0\", \"context\": \"", end = "\", \"choices\": [\"a\"], \"gold\": 0}\n";
  const std::string blanks(1 << 20, ' ');
  CHECK(read_eval_data({packed({{begin, 1}, {blanks, 3}, {end, 1}})}, {}).items[0].context.size() == 3 << 20);
  refused(packed({{begin, 1}, {blanks, 300}, {end, 1}}), "unpacks to more than 256 MiB");
  refused(packed({{begin, 1}, {blanks, 9}, {end, 1}}), ":1: is ");
  refused(packed({{begin + "\", \"choices\": [", 1}, {"\"a\",", 10'000}, {"\"b\"], \"gold\": 0}\n", 1}}), ":1: has 10001 choices");
  const std::string line = begin + end;
  folder.write("plain.jsonl", begin + blanks + end + begin + std::string(9 << 20, 'a') + end);
  refused((folder.path() / "plain.jsonl").string(), ":2: is ");
}
