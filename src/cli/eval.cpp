// eval: multiple-choice tasks, original against patched.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <numeric>

#include "base/notice.h"
#include "base/output_file.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "eval/samples.h"
#include "sinkref/error.h"
#include "sinkref/trace.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

struct EvalCommand : RunningCommand {
  std::vector<std::string> data, merge;
  std::optional<std::string> samples, tasks, few_shot, shard, out;
  std::optional<size_t> seed;
  size_t limit = 0;
  std::string variant = "both";
  bool force = false;

  EvalCommand() { chunk = eval_batch_rows; }
  OptionTable table() override {
    return joined({{{"data", texts("FILE", data),
                     "files of items, .jsonl or .jsonl.gz; - is standard input"},
                    {"tasks", text("NAMES", tasks), "only these tasks of the data, as arc_easy,mmlu"},
                    {"limit", number(limit, 0), "only so many items of each task, 0 for all"},
                    {"seed", number(seed, 0),
                     "with --limit: a random sample instead of the first items"},
                    {"few-shot", text("FILE", few_shot), "file of prefixes by subject: MMLU 5-shot"}},
                   patch_row(),
                   {{"variant", choice(variant, {"both", "original", "patched"}),
                     "both, original or patched"}},
                   ablate_row(),
                   {{"samples", text("FILE", samples),
                     "file for one line per item and variant, filled as they come; the same command "
                     "again goes on where it was stopped"},
                    {"shard", text("I/N", shard),
                     "only part I (from 0) of N, to be put together by --merge"},
                    {"merge", texts("FILE", merge), "samples files of all shards"}},
                   output_rows(out, force, "FILE", "where to write the summary, as --json prints it"),
                   bos_row(), softmax_row(), precision_row(), kernel_row(), chunk_row()});
  }
  int run() const override;
  bool needs_model() const override { return merge.empty(); }
};

EvalSelection selection(const EvalCommand& options) {
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

Shard parsed_shard(const EvalCommand& options) {
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

std::vector<std::string> variants(const EvalCommand& options, bool patched) {
  if (options.variant == "original" || !patched) return {"original"};
  if (options.variant == "patched") return {"patched"};
  return {"original", "patched"};
}

/// What of a model decides a result beside its weights.
ordered_json configuration(const Model& model) {
  const auto metadata = trace_metadata(model, model.config().layers, "fp32", Softmax::standard);
  ordered_json config = ordered_json::parse(metadata.at("config"));
  config["max_positions"] = model.config().max_positions;
  return config;
}

/// Everything that decides a byte of the result.
RunInfo run_info(const EvalCommand& options, const Model& model, const std::vector<Neurons>& patch,
                 const EvalData& data, std::pair<size_t, size_t> range) {
  ordered_json files = ordered_json::array();
  for (const EvalFile& file : data.files)
    files.push_back({{"name", valid_utf8(file.name)}, {"sha256", file.sha256}});
  RunInfo info = {{"program", "sinkref " SINKREF_VERSION},
                  {"arithmetic_version", arithmetic_version},
                  {"model", last_part(options.model)},
                  {"weights_sha256", model.weights_sha256(model.config().layers)},
                  {"config", configuration(model)},
                  {"tokenizer_sha256", tokenizer_sha256(model.checkpoint())},
                  {"kernel", options.kernel == "openblas" ? "openblas" : "any"},
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
  const std::set<std::string> tasks = selection(options).tasks;
  if (!tasks.empty()) info["tasks"] = tasks;
  if (options.seed) info["seed"] = *options.seed;
  const Shard part = parsed_shard(options);
  if (options.shard)
    info["shard"] = {{"index", part.index}, {"of", part.of}, {"first", range.first},
                     {"end", range.second}};
  return info;
}

/// Percent and time left over the items, whose costs are known before.
class EvalProgress {
 public:
  EvalProgress(const std::vector<double>& costs, size_t from, size_t end) : from_(from), end_(end) {
    for (size_t i = from; i < end; ++i) before_.push_back(before_.back() + costs[i]);
    progress_.plan(before_.back());
    progress_.step(text(0), before_.back());
  }
  void at(size_t done) {
    const double all = before_.back();
    progress_.share(all > 0 ? before_[done - from_] / all : 1, text(done - from_));
  }
  void finish() { progress_.finish(); }
  double elapsed() const { return progress_.elapsed(); }

 private:
  std::string text(size_t done) const {
    char rate[32] = "";
    if (done > 0) std::snprintf(rate, sizeof rate, ", %.1f items/s", double(done) / std::max(elapsed(), 1e-3));
    return std::to_string(done) + " of " + std::to_string(end_ - from_) + " items" + rate;
  }

  Progress progress_ = Progress::to_stderr();
  std::vector<double> before_{0};  // cost of the items before one
  size_t from_, end_;
};

/// Whether every variant's log-likelihoods of one item are.
bool finite(const std::vector<std::vector<EvalScore>>& scores, size_t item) {
  for (const std::vector<EvalScore>& variant : scores)
    for (double ll : variant[item].ll)
      if (!std::isfinite(ll)) return false;
  return true;
}

/// An item as it is asked, or why it cannot be.
struct Encoded {
  std::vector<EvalRequest> requests;
  std::string error;
};

Encoded encoded(const EvalCommand& options, const Tokenizer& tokenizer, size_t max_positions,
                const EvalItem& item) {
  try {
    return {encode_item(item, tokenizer, options.bos, max_positions), ""};
  } catch (const InputError& e) {
    return {{}, e.what()};
  }
}

Sample sample(const EvalItem& item, const std::string& variant, const Encoded& asked,
              EvalScore score) {
  Sample s;
  s.task = item.task;
  s.id = item.id;
  s.subject = item.subject;
  s.variant = variant;
  s.error = asked.error;
  if (!s.error.empty()) return s;
  s.metrics = item_metrics(item, score.ll);
  s.ll = std::move(score.ll);
  s.greedy = std::move(score.greedy);
  for (const EvalRequest& request : asked.requests)
    s.truncated = std::max(s.truncated, request.truncated);
  return s;
}

/// The first items that make one batch, and room for those that cannot be asked.
std::vector<Encoded> take_batch(std::vector<Encoded>& ahead) {
  std::vector<std::vector<EvalRequest>> requests;
  std::vector<size_t> index;
  for (size_t i = 0; i < ahead.size(); ++i)
    if (ahead[i].error.empty()) {
      requests.push_back(ahead[i].requests);
      index.push_back(i);
    }
  const size_t count = requests.empty() ? ahead.size() : index[batch_items(requests) - 1] + 1;
  std::vector<Encoded> batch(std::make_move_iterator(ahead.begin()),
                             std::make_move_iterator(ahead.begin() + static_cast<long>(count)));
  ahead.erase(ahead.begin(), ahead.begin() + static_cast<long>(count));
  return batch;
}

/// Scores items [from, end) and hands each batch's samples over in order. An item that cannot be
/// scored is said to be so in its samples, and those after it are scored.
template <class T>
void run_items(const EvalCommand& options, const Model& model, const std::vector<EvalItem>& items,
               size_t from, size_t end, const std::vector<std::string>& names,
               const std::vector<Neurons>& patch,
               const std::function<void(const std::vector<Sample>&, size_t)>& each_batch) {
  constexpr size_t most_ahead = 64;
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(model.checkpoint());
  const std::vector<Neurons> ablation = chosen_ablation(options, model);
  std::vector<EvalScorer<T>> scorers;
  for (const std::string& name : names)
    scorers.emplace_back(model, run_options(options),
                         name == "patched" ? patch : std::vector<Neurons>(), ablation);
  std::vector<Encoded> ahead;
  for (size_t next = from; next < end;) {
    while (ahead.size() < std::min(most_ahead, end - next))
      ahead.push_back(encoded(options, *tokenizer, model.config().max_positions,
                              items[next + ahead.size()]));
    std::vector<Encoded> batch = take_batch(ahead);
    std::vector<std::vector<EvalRequest>> requests;
    for (const Encoded& asked : batch)
      if (asked.error.empty()) requests.push_back(asked.requests);
    std::vector<std::vector<EvalScore>> scores;
    for (EvalScorer<T>& scorer : scorers) scores.push_back(scorer.score(requests));
    std::vector<Sample> samples;
    for (size_t i = 0, scored = 0; i < batch.size(); ++i) {
      const EvalItem& item = items[next + i];
      const bool asked = batch[i].error.empty();
      if (asked && !finite(scores, scored))
        batch[i].error = item.where + ": a log-likelihood is not finite; does the model hold NaN?";
      for (size_t v = 0; v < names.size(); ++v)
        samples.push_back(sample(item, names[v], batch[i],
                                 asked ? std::move(scores[v][scored]) : EvalScore()));
      scored += asked;
    }
    next += batch.size();
    each_batch(samples, next);
  }
}

/// By task, what was not as it should be.
struct Troubles {
  size_t not_scored = 0, truncated = 0, most_truncated = 0;
  std::string first_error;
};

std::map<std::string, Troubles> troubles(const std::vector<Sample>& samples) {
  std::map<std::string, Troubles> all;
  for (const Sample& s : samples) {
    if (s.variant != samples[0].variant || (s.error.empty() && s.truncated == 0)) continue;
    Troubles& t = all[s.task];
    if (!s.error.empty() && t.not_scored++ == 0) t.first_error = s.error;
    t.truncated += s.truncated > 0;
    t.most_truncated = std::max(t.most_truncated, s.truncated);
  }
  return all;
}

/// A name from a data file as a terminal may see it.
std::string shown(const std::string& name) {
  for (size_t i = 0; i < name.size(); ++i) {
    const auto c = static_cast<unsigned char>(name[i]);
    const bool c1 = c == 0xc2 && i + 1 < name.size() && static_cast<unsigned char>(name[i + 1]) < 0xa0;
    if (c < 0x20 || c == 0x7f || c1) return quoted(name);
  }
  return name;
}

/// Throws InputError where nothing could be scored at all.
void tell_troubles(const std::vector<Sample>& samples) {
  const std::map<std::string, Troubles> all = troubles(samples);
  const bool none = !samples.empty() && std::all_of(samples.begin(), samples.end(), [](const Sample& s) {
    return !s.error.empty();
  });
  if (none) throw InputError("no item could be scored, the first because " + samples[0].error);
  for (const auto& [task, t] : all) {
    if (t.not_scored > 0)
      notice(shown(task) + ": " + std::to_string(t.not_scored) +
             " items could not be scored and do not count; the first: " + t.first_error);
    if (t.truncated > 0)
      notice(shown(task) + ": " + std::to_string(t.truncated) +
             " items are longer than the model's context and lost their beginning, up to " +
             std::to_string(t.most_truncated) + " tokens");
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
  for (const auto& [task, t] : troubles(samples)) {
    if (t.not_scored > 0) tasks[task]["not_scored"] = t.not_scored;
    if (t.truncated > 0) tasks[task]["truncated"] = t.truncated;
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
        std::printf("%-18s  %-9s %6zu  %-8s %s", shown(task).c_str(), name.c_str(), values.size(),
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

void show(const EvalCommand& options, const RunInfo& info, const std::vector<Sample>& samples,
          std::optional<OutputFile>& out) {
  tell_troubles(samples);
  const std::string json = json_text(summary_json(info, samples), 1) + "\n";
  if (out) {
    out->append(json);
    out->commit();
  }
  if (options.json) std::cout << json;
  else print_table(samples);
}

int merge_samples(const EvalCommand& options) {
  if (!options.samples)
    throw InputError("--samples is missing; expected the file to write the merged samples to");
  std::optional<OutputFile> out;  // claimed before the work
  if (options.out) out.emplace(*options.out, options.force);
  std::error_code error;
  const bool there = !options.force && std::filesystem::is_regular_file(*options.samples, error);
  std::optional<OutputFile> merged;
  if (!there) merged.emplace(*options.samples, options.force);
  std::vector<Sample> samples;
  const RunInfo info = merge_shards(options.merge, samples);
  std::string text;
  for (const Sample& s : samples) text += sample_line(s);
  // A merge that was stopped after this file finds it as it would write it.
  const bool same = there && std::filesystem::file_size(*options.samples, error) == text.size() &&
                    read_text_file(*options.samples, text.size()) == text;
  if (there && !same)
    refuse(*options.samples, "exists already, expected no such file", "choose another name or add --force");
  write_text_file(info_path(*options.samples), run_info_text(info), true);
  if (merged) {
    merged->append(text);
    merged->commit();
  }
  show(options, info, samples, out);
  return 0;
}

}  // namespace

int EvalCommand::run() const {
  const EvalCommand& options = *this;
  if (!options.merge.empty()) return merge_samples(options);
  std::optional<OutputFile> out;  // claimed before the work
  if (options.out) out.emplace(*options.out, options.force);
  const Model model = open_model(options);
  const EvalData data = read_eval_data(options.data, selection(options));
  const std::vector<double> costs = eval_costs(data.items);
  const Shard part = parsed_shard(options);
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
  EvalProgress progress(costs, from, end);
  const auto each_batch = [&](const std::vector<Sample>& batch, size_t done) {
    if (file) file->append(batch);
    samples.insert(samples.end(), batch.begin(), batch.end());
    progress.at(done);
  };
  const auto run_all = options.precision == "fp64" ? run_items<double> : run_items<float>;
  run_all(options, model, data.items, from, end, names, patch, each_batch);
  progress.finish();
  if (file && !file->complete()) file->finish();
  say(std::to_string(end - from) + " items in " + Progress::duration(progress.elapsed()));
  show(options, info, samples, out);
  return 0;
}

std::unique_ptr<Command> make_eval() { return std::make_unique<EvalCommand>(); }

}  // namespace sinkref::cli
