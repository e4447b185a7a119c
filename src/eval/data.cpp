// Items from JSON-lines files: read, checked line by line, chosen.

#include <openssl/evp.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "base/json_file.h"
#include "sinkref/error.h"
#include "eval/eval.h"

namespace sinkref {

namespace {

using nlohmann::json;

std::string sha256(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr);
  std::string hex;
  for (unsigned i = 0; i < size; ++i)
    for (int shift : {4, 0}) hex += "0123456789abcdef"[digest[i] >> shift & 15];
  return hex;
}

/// The text of a .gz file; other files as they are. A megabyte can hold a gigabyte of blanks.
std::string unpacked(const std::string& file, const std::string& bytes) {
  constexpr size_t most = size_t{256} << 20;
  if (!bytes.starts_with("\x1f\x8b")) return bytes;
  std::error_code error_of_status;
  if (file == "-" || !std::filesystem::is_regular_file(file, error_of_status))
    throw InputError(file + ": gzip through a pipe; unpack it there: gunzip -c FILE | sinkref eval --data -");
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> in(gzopen(file.c_str(), "rb"), gzclose);
  if (!in) throw InputError(file + ": cannot be opened as gzip");
  std::string text;
  std::vector<char> part(1 << 16);
  for (int n = 0; (n = gzread(in.get(), part.data(), static_cast<unsigned>(part.size()))) != 0;) {
    if (n < 0) throw InputError(file + ": is a damaged gzip file; fetch it again");
    text.append(part.data(), static_cast<size_t>(n));
    if (text.size() > most) throw InputError(file + ": unpacks to more than 256 MiB; split it into several files");
  }
  int error = 0;
  gzerror(in.get(), &error);
  if (error != Z_OK) throw InputError(file + ": is a damaged gzip file; fetch it again");
  return text;
}

// A megabyte of gzip can hold many of them too.
constexpr size_t longest_line = size_t{8} << 20, most_choices = 10'000, most_items = 1'000'000;

/// Calls each(object, "file:line") for every line.
void each_line(const std::string& file, std::string_view text,
               const std::function<void(const json&, const std::string&)>& each) {
  size_t line = 1;
  for (size_t begin = 0; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string where = file + ":" + std::to_string(line);
    const std::string_view row = text.substr(begin, end - begin);
    if (row.empty()) throw InputError(where + ": is empty; expected a JSON object on every line");
    if (row.size() > longest_line)
      throw InputError(where + ": is " + std::to_string(row.size()) + " bytes long; expected at most " +
                       std::to_string(longest_line) + " for one item");
    const json object = parse_json(row, where);
    if (!object.is_object()) throw InputError(where + ": expected a JSON object");
    each(object, where);
    begin = end + 1;
  }
  if (line == 1) throw InputError(file + ": holds no items; expected a JSON object on every line");
}

const json& field(const json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end())
    throw InputError(where + ": has no \"" + key + "\"; tools/guide/eval.md describes the format");
  return *found;
}

std::string text_field(const json& object, const char* key, const std::string& where) {
  const json& value = field(object, key, where);
  if (!value.is_string())
    throw InputError(where + ": \"" + key + "\" is " + value.type_name() + ", expected a string");
  return value.get<std::string>();
}

/// A list of `count` values (any number but none if `count` is 0), each accepted by `check`.
template <class T>
std::vector<T> list_field(const json& object, const char* key, const std::string& where,
                          size_t count, bool (*check)(const json&), const char* expected) {
  const json& value = field(object, key, where);
  const bool right_length =
      value.is_array() && (count == 0 ? !value.empty() : value.size() == count);
  if (!right_length || !std::all_of(value.begin(), value.end(), check))
    throw InputError(where + ": \"" + key + "\": expected a list of " +
                     (count == 0 ? "" : std::to_string(count) + " ") + expected +
                     (value.is_array() ? ", found " + std::to_string(value.size()) + " values" : ""));
  return value.get<std::vector<T>>();
}

EvalItem read_item(const json& object, const std::string& where) {
  const auto is_text = [](const json& v) { return v.is_string(); };
  const auto is_some_text = [](const json& v) {
    return v.is_string() && !v.get_ref<const std::string&>().empty();
  };
  const auto is_divisor = [](const json& v) { return v.is_number_unsigned() && v > 0; };
  const auto is_label = [](const json& v) { return v == 0 || v == 1; };
  EvalItem item;
  item.where = where;
  item.task = text_field(object, "task", where);
  item.id = text_field(object, "id", where);
  item.context = text_field(object, "context", where);
  if (item.task.empty()) throw InputError(where + ": \"task\" is empty; expected a name");
  if (object.contains("subject")) item.subject = text_field(object, "subject", where);
  item.choices = list_field<std::string>(object, "choices", where, 0, is_some_text,
                                         "texts that are not empty");
  const size_t n = item.choices.size();
  if (n > most_choices)
    throw InputError(where + ": has " + std::to_string(n) + " choices, expected at most " +
                     std::to_string(most_choices));
  if (object.contains("contexts"))
    item.contexts = list_field<std::string>(object, "contexts", where, n, is_text, "texts");
  if (object.contains("norm_chars"))
    item.norm_chars =
        list_field<double>(object, "norm_chars", where, n, is_divisor, "whole numbers from 1");
  if (object.contains("norm_bytes"))
    item.norm_bytes =
        list_field<double>(object, "norm_bytes", where, n, is_divisor, "whole numbers from 1");
  if (object.contains("labels")) {
    item.labels = list_field<int>(object, "labels", where, n, is_label, "labels, each 0 or 1");
    if (std::count(item.labels.begin(), item.labels.end(), 1) == 0)
      throw InputError(where + ": \"labels\" calls no choice true");
    return item;
  }
  const json& gold = field(object, "gold", where);
  if (!gold.is_number_unsigned() || gold >= n)
    throw InputError(where + ": \"gold\" is " + quoted(gold.dump().substr(0, 40)) +
                     ", expected a choice from 0 to " + std::to_string(n - 1));
  item.gold = gold.get<size_t>();
  return item;
}

/// By subject: what the context's description gives way to.
struct FewShot {
  std::string description, prefix;
};

void apply_few_shot(const std::string& file, EvalData& data) {
  const std::string bytes = read_text_file(file);
  std::map<std::string, FewShot> by_subject;
  each_line(file, unpacked(file, bytes), [&](const json& object, const std::string& where) {
    by_subject[text_field(object, "subject", where)] = {
        text_field(object, "description", where), text_field(object, "prefix_5shot", where)};
  });
  for (EvalItem& item : data.items) {
    const auto found = by_subject.find(item.subject);
    if (item.subject.empty()) continue;
    if (found == by_subject.end())
      throw InputError(file + ": has no subject " + quoted(item.subject) + ", which " + item.where +
                       " needs");
    const auto& [description, prefix] = found->second;
    if (!item.context.starts_with(description) || !item.contexts.empty())
      throw InputError(item.where + ": \"context\" does not begin with the description " +
                       quoted(description) + " that " + file + " has for its subject");
    item.context = prefix + item.context.substr(description.size());
    item.task += "_5shot";
  }
  data.files.push_back({std::filesystem::path(file).filename().string(), sha256(bytes)});
}

void require_unique_ids(const std::vector<EvalItem>& items) {
  std::map<std::pair<std::string_view, std::string_view>, const EvalItem*> seen;
  for (const EvalItem& item : items) {
    const auto [other, fresh] = seen.insert({{item.task, item.id}, &item});
    if (!fresh)
      throw InputError(item.where + ": the id " + quoted(item.id) + " of task " +
                       quoted(item.task) + " stands at " + other->second->where + " already");
  }
}

void require_tasks(const std::vector<EvalItem>& items, const std::set<std::string>& wanted) {
  std::set<std::string> present;
  for (const EvalItem& item : items) present.insert(item.task);
  std::string list;
  for (const std::string& task : present) list += (list.empty() ? "" : ", ") + quoted(task);
  for (const std::string& task : wanted)
    if (!present.contains(task))
      throw InputError("--tasks: the data has no task " + quoted(task) + "; it has " + list);
}

/// splitmix64 (Steele et al. 2014): a fixed order at random for every seed.
uint64_t shuffled(uint64_t seed, uint64_t index) {
  uint64_t z = (seed + 1) * 0x9e3779b97f4a7c15u + index * 0xd1342543de82ef95u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/// The first items of each task, or with a seed those of the lowest random numbers, in their order.
void limit_items(const EvalSelection& selection, std::vector<EvalItem>& items) {
  std::map<std::string, std::vector<size_t>> by_task;
  for (size_t i = 0; i < items.size(); ++i)
    if (selection.tasks.empty() || selection.tasks.contains(items[i].task))
      by_task[items[i].task].push_back(i);
  std::vector<size_t> kept;
  for (auto& [task, indices] : by_task) {
    if (selection.seed) {
      // Numbered within the task, so that the sample does not depend on the other files.
      std::vector<std::pair<uint64_t, size_t>> order;
      for (size_t k = 0; k < indices.size(); ++k)
        order.push_back({shuffled(*selection.seed, k), indices[k]});
      std::sort(order.begin(), order.end());
      for (size_t k = 0; k < order.size(); ++k) indices[k] = order[k].second;
    }
    if (selection.limit > 0 && indices.size() > selection.limit) indices.resize(selection.limit);
    kept.insert(kept.end(), indices.begin(), indices.end());
  }
  std::sort(kept.begin(), kept.end());
  std::vector<EvalItem> chosen;
  for (size_t i : kept) chosen.push_back(std::move(items[i]));
  items = std::move(chosen);
}

size_t shared_characters(const std::string& a, const std::string& b) {
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

EvalData read_eval_data(const std::vector<std::string>& files, const EvalSelection& selection) {
  if (files.empty()) throw InputError("--data is missing; expected a file of items, .jsonl or .gz");
  EvalData data;
  for (const std::string& file : files) {
    const std::string bytes = read_text_file(file);
    each_line(file, unpacked(file, bytes), [&](const json& object, const std::string& where) {
      if (data.items.size() == most_items)
        throw InputError(where + ": is more than " + std::to_string(most_items) +
                         " items; expected fewer, split the data into several runs");
      data.items.push_back(read_item(object, where));
    });
    data.files.push_back({std::filesystem::path(file).filename().string(), sha256(bytes)});
  }
  if (!selection.few_shot.empty()) apply_few_shot(selection.few_shot, data);
  require_unique_ids(data.items);
  require_tasks(data.items, selection.tasks);
  limit_items(selection, data.items);
  return data;
}

std::vector<double> eval_costs(const std::vector<EvalItem>& items) {
  std::vector<double> costs;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string& context = items[i].context_of(0);
    const size_t shared = i == 0 ? 0 : shared_characters(context, items[i - 1].context_of(0));
    double cost = static_cast<double>(context.size() - shared);
    for (const std::string& choice : items[i].choices) cost += static_cast<double>(choice.size());
    costs.push_back(cost);
  }
  return costs;
}

std::pair<size_t, size_t> shard_range(const std::vector<double>& costs, size_t index,
                                      size_t count) {
  const double all = std::accumulate(costs.begin(), costs.end(), 0.0);
  // The first item before which at least that part of the cost lies.
  const auto boundary = [&](size_t shard) {
    if (shard == count) return costs.size();
    const double wanted = all * static_cast<double>(shard) / static_cast<double>(count);
    double before = 0;
    size_t i = 0;
    while (i < costs.size() && before < wanted) before += costs[i++];
    return i;
  };
  return {boundary(index), boundary(index + 1)};
}

}  // namespace sinkref
