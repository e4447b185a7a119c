// eval: multiple-choice tasks, original against patched.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <numeric>

#include "cli/commands.h"
#include "cli/inputs.h"
#include "eval/samples.h"
#include "sinkref/error.h"
#include "base/output_file.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

EvalSelection selection(const Options& options) {
  EvalSelection chosen;
  chosen.limit = options.limit;
  chosen.seed = options.seed;
  if (options.few_shot) chosen.few_shot = *options.few_shot;
  if (options.seed && options.limit == 0)
    throw InputError("--seed chooses the sample that --limit asks for; add --limit");
  if (!options.tasks) return chosen;
  for (size_t begin = 0; begin <= options.tasks->size();) {
    const size_t end = std::min(options.tasks->find(',', begin), options.tasks->size());
    if (end == begin)
      throw InputError("--tasks " + quoted(*options.tasks) + ": expected names as a,b,c");
    chosen.tasks.insert(options.tasks->substr(begin, end - begin));
    begin = end + 1;
  }
  return chosen;
}

struct Shard {
  size_t index = 0, of = 1;
};

Shard shard(const Options& options) {
  Shard shard;
  if (!options.shard) return shard;
  const std::string& text = *options.shard;
  char end = 0;
  const bool digits = text.find_first_not_of("0123456789/") == text.npos && text.size() < 16;
  if (!digits || std::sscanf(text.c_str(), "%zu/%zu%c", &shard.index, &shard.of, &end) != 2 ||
      shard.index >= shard.of)
    throw InputError("--shard " + quoted(text) + ": expected I/N with I from 0 to N-1, as 0/4");
  if (!options.samples) throw InputError("--shard needs --samples, the file that --merge reads");
  return shard;
}

std::vector<std::string> variants(const Options& options, bool patched) {
  if (options.variant == "original" || !patched) return {"original"};
  if (options.variant == "patched") return {"patched"};
  return {"original", "patched"};
}

/// Everything that decides a byte of the result.
RunInfo run_info(const Options& options, const Model& model, const std::vector<Neurons>& patch,
                 const EvalData& data, std::pair<size_t, size_t> range) {
  ordered_json files = ordered_json::array();
  for (const EvalFile& file : data.files)
    files.push_back({{"name", file.name}, {"sha256", file.sha256}});
  RunInfo info = {{"program", "sinkref " SINKREF_VERSION},
                  {"arithmetic_version", arithmetic_version},
                  {"model", std::filesystem::path(options.model).filename().string()},
                  {"weights_sha256", model.weights_sha256(model.config().layers)},
                  {"precision", options.precision},
                  {"softmax", options.softmax == Softmax::one ? "one" : "standard"},
                  {"bos", options.bos == BosPolicy::on ? "on" : options.bos == BosPolicy::off
                                                                    ? "off" : "auto"},
                  {"patch", neurons_text(patch)},
                  {"ablate", options.ablate},
                  {"variants", variants(options, !patch.empty())},
                  {"data", files},
                  {"tasks", nullptr},
                  {"limit", options.limit},
                  {"seed", nullptr},
                  {"items", data.items.size()},
                  {"shard", nullptr}};
  if (options.tasks) info["tasks"] = *options.tasks;
  if (options.seed) info["seed"] = *options.seed;
  const Shard part = shard(options);
  if (options.shard)
    info["shard"] = {{"index", part.index}, {"of", part.of}, {"first", range.first},
                     {"end", range.second}};
  return info;
}

/// "120 of 4000 items, 3.1 items/s, 21 min left" on one line that renews itself.
class Progress {
 public:
  Progress(const std::vector<double>& costs, size_t from, size_t end)
      : costs_(costs), from_(from), end_(end) {}
  void at(size_t done) const {
    if (!isatty(2)) return;
    const double seconds = elapsed();
    const double ran = cost(from_, done), left = cost(done, end_);
    std::fprintf(stderr, "\r%zu of %zu items, %.1f items/s, %s left   %s", done - from_,
                 end_ - from_, static_cast<double>(done - from_) / std::max(seconds, 1e-3),
                 duration(ran > 0 ? seconds * left / ran : 0).c_str(), done == end_ ? "\n" : "");
  }
  double elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  static std::string duration(double seconds) {
    char text[32];
    if (seconds < 90) std::snprintf(text, sizeof text, "%.0f s", seconds);
    else if (seconds < 5400) std::snprintf(text, sizeof text, "%.0f min", seconds / 60);
    else std::snprintf(text, sizeof text, "%.1f h", seconds / 3600);
    return text;
  }

 private:
  double cost(size_t begin, size_t end) const {
    return std::accumulate(costs_.begin() + static_cast<long>(begin),
                           costs_.begin() + static_cast<long>(end), 0.0);
  }
  const std::vector<double>& costs_;
  size_t from_, end_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Whether every variant's log-likelihoods of one item are.
bool finite(const std::vector<std::vector<EvalScore>>& scores, size_t item) {
  for (const std::vector<EvalScore>& variant : scores)
    for (double ll : variant[item].ll)
      if (!std::isfinite(ll)) return false;
  return true;
}

Sample sample(const EvalItem& item, const std::string& variant, EvalScore score) {
  Metrics metrics = item_metrics(item, score.ll);
  return {item.task, item.id, item.subject, variant, std::move(score.ll), std::move(score.greedy),
          std::move(metrics)};
}

/// Fills up `encoded`, the requests of the items from `first` on. A faulty item ends it, and is an
/// error only when it is the first: those before it are scored and kept.
void encode_ahead(const Options& options, const Tokenizer& tokenizer, size_t max_positions,
                  const std::vector<EvalItem>& items, size_t first, size_t end,
                  std::vector<std::vector<EvalRequest>>& encoded) {
  constexpr size_t ahead = 64;
  while (encoded.size() < std::min(ahead, end - first)) {
    const EvalItem& item = items[first + encoded.size()];
    try {
      encoded.push_back(encode_item(item, tokenizer, options.bos, max_positions));
    } catch (const InputError&) {
      if (encoded.empty()) throw;
      return;
    }
  }
}

/// Scores items [from, end) and hands each batch's samples over in order.
template <class T>
void run_items(const Options& options, const Model& model, const std::vector<EvalItem>& items,
               size_t from, size_t end, const std::vector<std::string>& names,
               const std::vector<Neurons>& patch,
               const std::function<void(const std::vector<Sample>&, size_t)>& each_batch) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(model.checkpoint());
  const std::vector<Neurons> ablation = chosen_ablation(options, model);
  std::vector<EvalScorer<T>> scorers;
  for (const std::string& name : names)
    scorers.emplace_back(model, run_options(options),
                         name == "patched" ? patch : std::vector<Neurons>(), ablation);
  std::vector<std::vector<EvalRequest>> encoded;
  for (size_t next = from; next < end;) {
    encode_ahead(options, *tokenizer, model.config().max_positions, items, next, end, encoded);
    const auto batch_end = encoded.begin() + static_cast<long>(batch_items(encoded));
    const std::vector<std::vector<EvalRequest>> batch(encoded.begin(), batch_end);
    encoded.erase(encoded.begin(), batch_end);
    std::vector<std::vector<EvalScore>> scores;
    for (EvalScorer<T>& scorer : scorers) scores.push_back(scorer.score(batch));
    std::vector<Sample> samples;
    for (size_t i = 0; i < batch.size(); ++i) {
      const EvalItem& item = items[next + i];
      if (!finite(scores, i)) {
        each_batch(samples, next + i);
        throw InputError(item.where +
                         ": a log-likelihood is not finite; does the model hold NaN?");
      }
      for (size_t v = 0; v < names.size(); ++v)
        samples.push_back(sample(item, names[v], std::move(scores[v][i])));
    }
    next += batch.size();
    each_batch(samples, next);
  }
}

ordered_json estimate_json(const Estimate& e, const char* value_name) {
  ordered_json j = {{value_name, e.mean}, {std::string(value_name) + "_stderr", nullptr}};
  if (e.stderr_) j[std::string(value_name) + "_stderr"] = *e.stderr_;
  return j;
}

/// Values of one metric of one task, by variant.
struct Column {
  std::map<std::string, std::vector<double>> values;
  std::vector<std::string> subjects;
};

/// By task in the order of the data, then by metric in lm-eval's.
std::vector<std::pair<std::string, std::vector<std::pair<std::string, Column>>>> columns(
    const std::vector<Sample>& samples) {
  std::vector<std::pair<std::string, std::vector<std::pair<std::string, Column>>>> tasks;
  const auto find_or_add = [](auto& list, const std::string& key) -> auto& {
    for (auto& [name, value] : list)
      if (name == key) return value;
    list.emplace_back(key, typename std::decay_t<decltype(list)>::value_type::second_type());
    return list.back().second;
  };
  for (const Sample& s : samples) {
    auto& metrics = find_or_add(tasks, s.task);
    for (const auto& [name, value] : s.metrics) {
      Column& column = find_or_add(metrics, name);
      if (s.variant == samples[0].variant) column.subjects.push_back(s.subject);
      column.values[s.variant].push_back(value);
    }
  }
  return tasks;
}

ordered_json summary_json(const RunInfo& info, const std::vector<Sample>& samples) {
  ordered_json tasks = ordered_json::object();
  for (const auto& [task, metrics] : columns(samples)) {
    ordered_json& j = tasks[task];
    for (const auto& [name, column] : metrics) {
      for (const auto& [variant, values] : column.values) {
        j[variant].update(estimate_json(estimate(values, column.subjects), name.c_str()));
        j[variant]["n"] = values.size();
      }
      if (column.values.size() < 2) continue;
      const Paired pair =
          paired(column.values.at("original"), column.values.at("patched"), column.subjects);
      j["delta"].update(estimate_json(pair.difference, name.c_str()));
      j["delta"][name + "_better"] = pair.better;
      j["delta"][name + "_worse"] = pair.worse;
      j["delta"][name + "_mcnemar_p"] = nullptr;
      if (pair.p) j["delta"][name + "_mcnemar_p"] = *pair.p;
    }
  }
  return {{"run", info}, {"tasks", tasks}};
}

std::string with_error(const Estimate& e) {
  char text[48];
  if (e.stderr_) std::snprintf(text, sizeof text, "%8.4f ±%.4f", e.mean, *e.stderr_);
  else std::snprintf(text, sizeof text, "%8.4f        ", e.mean);
  return text;
}

void print_table(const std::vector<Sample>& samples) {
  std::puts("task                metric         n  variant        value           "
            "difference        better worse   McNemar p");
  for (const auto& [task, metrics] : columns(samples))
    for (const auto& [name, column] : metrics)
      for (const auto& [variant, values] : column.values) {
        std::printf("%-18s  %-9s %6zu  %-8s %s", task.c_str(), name.c_str(), values.size(),
                    variant.c_str(), with_error(estimate(values, column.subjects)).c_str());
        if (variant == "patched" && column.values.size() == 2) {
          const Paired pair =
              paired(column.values.at("original"), values, column.subjects);
          std::printf("  %s  %6zu %5zu", with_error(pair.difference).c_str(), pair.better,
                      pair.worse);
          if (pair.p) std::printf("  %10.3g", *pair.p);
        }
        std::puts("");
      }
}

void show(const Options& options, const RunInfo& info, const std::vector<Sample>& samples) {
  const std::string json = summary_json(info, samples).dump(1) + "\n";
  if (options.out) write_text_file(*options.out, json, options.force);
  if (options.json) std::cout << json;
  else print_table(samples);
}

int merge(const Options& options) {
  if (!options.samples)
    throw InputError("--samples is missing; expected the file to write the merged samples to");
  std::vector<Sample> samples;
  const RunInfo info = merge_shards(options.merge, samples);
  std::string text;
  for (const Sample& s : samples) text += sample_line(s);
  write_text_file(*options.samples, text, options.force);
  write_text_file(info_path(*options.samples), info.dump(1) + "\n", true);
  show(options, info, samples);
  return 0;
}

}  // namespace

int eval(const Options& options) {
  if (!options.merge.empty()) return merge(options);
  const Model model = open_model(options);
  const EvalData data = read_eval_data(options.data, selection(options));
  const std::vector<double> costs = eval_costs(data.items);
  const Shard part = shard(options);
  const auto [first, end] = shard_range(costs, part.index, part.of);
  const std::vector<Neurons> patch = chosen_patch(options, model);
  if (options.patch == "auto" && patch.empty())
    say("no sink was found, so there is nothing to patch: only the original is run");
  if (options.variant == "patched" && patch.empty())
    throw InputError("--variant patched: there is no patch; add --patch auto or LAYER:NEURONS");
  const RunInfo info = run_info(options, model, patch, data, {first, end});
  const std::vector<std::string> names = variants(options, !patch.empty());
  std::vector<std::pair<std::string, std::string>> keys;
  for (size_t i = first; i < end; ++i) keys.push_back({data.items[i].task, data.items[i].id});
  std::unique_ptr<SampleFile> file;
  std::vector<Sample> samples;
  if (options.samples) {
    file = std::make_unique<SampleFile>(*options.samples, info, keys, names, options.force);
    samples = file->found();
  }
  const size_t from = first + samples.size() / names.size();
  if (from > first) say(std::to_string(from - first) + " items were done before");
  const Progress progress(costs, from, end);
  const auto each_batch = [&](const std::vector<Sample>& batch, size_t done) {
    if (file) file->append(batch);
    samples.insert(samples.end(), batch.begin(), batch.end());
    progress.at(done);
  };
  const auto run = options.precision == "fp64" ? run_items<double> : run_items<float>;
  run(options, model, data.items, from, end, names, patch, each_batch);
  if (file && !file->complete()) file->finish();
  say(std::to_string(end - from) + " items in " + Progress::duration(progress.elapsed()));
  show(options, info, samples);
  return 0;
}

}  // namespace sinkref::cli
