#include "verify/golden_file.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json_file.h"
#include "sinkref/error.h"
#include "verify/trace_values.h"

namespace sinkref {

using nlohmann::json;

namespace {

constexpr const char* remedy = "write it with tools/reference/hf_golden.py";

/// "blocks.3.hook_resid_post.norm" holds the norms of the rows of that hook.
const std::string norm_suffix = ".norm";

const std::string& required(const TraceFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end())
    refuse(file.path().string(), "metadata has no " + quoted(key) + ", expected it", remedy);
  return found->second;
}

json required_json(const TraceFile& file, const std::string& key) {
  return parse_json(required(file, key), file.path().string() + ": metadata " + quoted(key));
}

/// A number of one entry of the floor.
double error_in(const json& entry, const char* key, const std::string& where) {
  const auto found = entry.find(key);
  const bool is_error = found != entry.end() && found->is_number() && found->get<double>() >= 0;
  if (!is_error)
    refuse(where,
           quoted(key) + " is " + (found == entry.end() ? "not there" : quoted(found->dump())) +
               ", expected a number, 0 or above",
           remedy);
  return found->get<double>();
}

std::string floor_of(const TraceFile& file, const std::string& name) {
  return file.path().string() + ": metadata \"floor\": " + quoted(name);
}

json floor_json(const TraceFile& file) {
  json floor = required_json(file, "floor");
  if (!floor.is_object() || floor.empty())
    refuse(file.path().string(), "metadata \"floor\" is " + quoted(floor.dump()) +
           ", expected an object of every tensor's errors", remedy);
  for (const auto& [name, entry] : floor.items())
    if (!entry.is_object())
      refuse(floor_of(file, name), std::string("is of type ") + entry.type_name() + ", expected an object",
             remedy);
  return floor;
}

/// What a golden may hold beside the tensors that are compared.
bool is_known_extra(const std::string& name) {
  return name == "tokens" || name == "generated" || name == "generated_fp64" ||
         name == "generated_margin" || name == "rope.inv_freq";
}

}  // namespace

std::map<std::string, GoldenFloor> read_golden_floor(const TraceFile& file) {
  std::map<std::string, GoldenFloor> all;
  const json floor = floor_json(file);
  for (const auto& [name, entry] : floor.items()) {
    const std::string where = floor_of(file, name);
    const json scale = entry.value("scale", json("element"));
    if (scale != "element" && scale != "row" && scale != "tensor")
      refuse(where, "\"scale\" is " + quoted(scale.dump()) + ", expected \"element\", \"row\" or \"tensor\"",
             remedy);
    all[name] = {{error_in(entry, "pool_rms", where), error_in(entry, "pool_row_rms", where)},
                 scale == "tensor"};
  }
  return all;
}

GoldenFile::GoldenFile(const std::filesystem::path& path, const Model& model) {
  const TraceFile file = TraceFile::open(path);
  const std::string name = path.string();
  const ModelConfig& config = model.config();
  const std::string weights = model.weights_sha256(config.layers);
  if (required(file, "weights_sha256") != weights)
    refuse(name, "was made from weights " + quoted(required(file, "weights_sha256").substr(0, 16)) +
                     ", expected this model's, " + quoted(weights.substr(0, 16)),
           "give the golden that belongs to the model");
  tokens = checked_ids(file, "tokens", {1, any_extent}, config.vocab_size);
  const std::string& patched = required(file, "patch");
  if (patched != "none") patch = parse_neurons(patched, "patch of " + name, config);
  inv_freq = checked_values(file, "rope.inv_freq", {model.inv_freq().size()}, {"F32", "F64"});
  if (file.has("generated"))
    generated = checked_ids(file, "generated", {1, any_extent}, config.vocab_size);
  read_positions(file);
  read_tensors(file, config);
}

void GoldenFile::read_positions(const TraceFile& file) {
  const std::string where = file.path().string() + ": metadata \"positions\"";
  const json list = required_json(file, "positions");
  if (!list.is_array())
    refuse(where, std::string("is of type ") + list.type_name() + ", expected a list of positions", remedy);
  for (const json& position : list) {
    const bool follows = position.is_number_unsigned() && position.get<size_t>() < tokens.size() &&
                         (positions.empty() || position.get<size_t>() > positions.back());
    if (!follows)
      refuse(where, "holds " + quoted(position.dump()) + ", expected positions below " +
                        std::to_string(tokens.size()) + " in ascending order", remedy);
    positions.push_back(position.get<size_t>());
  }
}

void GoldenFile::read_tensors(const TraceFile& file, const ModelConfig& config) {
  const std::map<std::string, GoldenFloor> floor = read_golden_floor(file);
  std::set<std::string> unread;
  for (const std::string& name : file.names())
    if (!is_known_extra(name)) unread.insert(name);
  for (Hook hook : all_hooks(config.layers))
    for (const bool norm : {false, true}) {
      const std::string name = hook_name(hook) + (norm ? norm_suffix : "");
      const bool attention = is_attention(hook.point);
      if (!file.has(name) || (norm && attention)) continue;
      Tensor tensor{name, hook, norm, 1, norm ? tokens.size() : positions.size(), 1, {}, {}};
      std::vector<uint64_t> shape = {1, tensor.rows};
      if (attention) {
        tensor.heads = config.heads;
        tensor.width = tokens.size();
        shape = {1, config.heads, tensor.rows, tokens.size()};
      } else if (!norm) {
        for (const size_t extent : hook_shape(hook.point, config)) {
          shape.push_back(extent);
          tensor.width *= extent;
        }
      }
      tensor.truth = checked_values(file, name, shape, {"F64", "F32"});
      const auto found = floor.find(name);
      if (found == floor.end())
        refuse(floor_of(file, name), "is not there, expected this tensor's errors", remedy);
      tensor.floor = found->second;
      tensors.push_back(std::move(tensor));
      unread.erase(name);
    }
  if (!unread.empty())
    refuse(file.path().string() + ": tensor " + quoted(*unread.begin()),
           "is none of this model's hooks, expected only tensors that can be compared",
           "give the golden that belongs to the model");
  for (const auto& [name, errors] : floor)
    if (!file.has(name))
      refuse(floor_of(file, name), "is of a tensor that the file lacks, expected it there", remedy);
  if (tensors.empty())
    refuse(file.path().string(), "holds no tensor to compare, expected some", remedy);
  if (file.has("logits"))
    logits_max_error = error_in(floor_json(file).at("logits"), "pool_max", floor_of(file, "logits"));
}

}  // namespace sinkref
