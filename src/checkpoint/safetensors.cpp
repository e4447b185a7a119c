// https://github.com/huggingface/safetensors#format, read strictly: whatever the README disallows
// is refused, also where the reference implementation lets it pass (leading spaces, duplicate
// keys).
//
//   u64 N | N bytes of JSON header | data
//   header: {"name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [begin, end]}, …,
//            "__metadata__": {string: string}}
#include <algorithm>
#include <set>

#include "arithmetic/dtypes.h"
#include "base/json_file.h"
#include "checkpoint/metadata.h"
#include "checkpoint/readers.h"
#include "sinkref/error.h"

namespace sinkref {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr uint64_t longest_header = 100'000'000;  // the reference's limit

const DTypeRow& file_dtype(const json& value, const std::string& where) {
  if (!value.is_string())
    refuse(where, std::string("dtype is of type ") + value.type_name() + ", expected a string");
  const std::string& name = value.get_ref<const std::string&>();
  const DTypeRow* found = dtype_named(name);
  if (found == nullptr || !found->in_safetensors)
    refuse(where, "dtype is " + quoted(name) + ", expected one of the safetensors format");
  return *found;
}

std::vector<uint64_t> sizes(const json& value, const std::string& where, const std::string& field) {
  if (!value.is_array())
    refuse(where, field + " is of type " + value.type_name() + ", expected an array");
  std::vector<uint64_t> out;
  for (const json& element : value) {
    if (!element.is_number_unsigned())
      refuse(where,
             field + " holds " + quoted(element.dump()) + ", expected integers from 0 to 2^64-1");
    out.push_back(element.get<uint64_t>());
  }
  return out;
}

void check_fields(const json& entry, const std::string& where) {
  if (!entry.is_object())
    refuse(where, std::string("is of type ") + entry.type_name() + ", expected an object");
  for (const char* field : {"dtype", "shape", "data_offsets"})
    if (!entry.contains(field)) refuse(where, std::string("has no ") + field + ", expected one");
  for (const auto& [field, value] : entry.items())
    if (field != "dtype" && field != "shape" && field != "data_offsets")
      refuse(where,
             "has the unknown field " + quoted(field) + ", expected dtype, shape and data_offsets");
}

// One entry of the header; `data` is where the file's offsets count from.
StoredTensor read_entry(const MappedFile& file, const std::string& name, const json& entry,
                        std::span<const std::byte> data) {
  const std::string where = file.path().string() + ": tensor " + quoted(name);
  check_fields(entry, where);
  StoredTensor tensor;
  tensor.file = file.path();
  tensor.stored_name = name;
  const DTypeRow& dtype = file_dtype(entry["dtype"], where);
  if (dtype.dtype)
    tensor.dtype = *dtype.dtype;
  else
    tensor.unsupported_dtype = dtype.info.name;
  tensor.shape = sizes(entry["shape"], where, "shape");
  const std::vector<uint64_t> offsets = sizes(entry["data_offsets"], where, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size())
    refuse(where,
           "data_offsets are " + shape_text(offsets) + ", expected [begin, end] within the " +
               std::to_string(data.size()) + " bytes of data",
           "the file may be truncated: download it again");
  std::vector<uint64_t> bit_factors = tensor.shape;
  bit_factors.push_back(8 * dtype.info.bytes / dtype.info.block);  // F4 has half a byte
  const std::optional<uint64_t> bits = product(bit_factors);
  tensor.bytes = offsets[1] - offsets[0];
  if (!bits || *bits % 8 != 0 || *bits / 8 != tensor.bytes)
    refuse(where, "shape " + shape_text(tensor.shape) + " of " + dtype.info.name + " takes " +
                      (bits ? std::to_string(*bits / 8) : "more than 2^61") +
                      " bytes, expected the " + std::to_string(tensor.bytes) +
                      " that data_offsets span");
  tensor.data = data.data() + offsets[0];
  return tensor;
}

json read_header(const MappedFile& file) {
  const std::string name = file.path().string();
  const std::span<const std::byte> bytes = file.bytes();
  constexpr std::string_view pointer = "version https://git-lfs";
  if (bytes.size() >= pointer.size() &&
      std::memcmp(bytes.data(), pointer.data(), pointer.size()) == 0)
    refuse(name, "is a git-lfs pointer, expected the file itself", "run git lfs pull");
  if (bytes.size() < 8)
    refuse(name,
           "holds " + std::to_string(bytes.size()) +
               " bytes, expected a safetensors file (8 bytes of header length first)",
           "download it again");
  const uint64_t length = load<uint64_t>(bytes.data());
  if (length == 0 || length > longest_header || length > bytes.size() - 8)
    refuse(name,
           "header length is " + std::to_string(length) + " in a file of " +
               std::to_string(bytes.size()) + " bytes, expected a header that fits",
           "no safetensors file, or truncated: download it again");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  if (text.front() != '{')
    refuse(name,
           "header starts with " + quoted(std::string(text.substr(0, 1))) + ", expected \"{\"");
  return parse_json(text, name + ": header");
}

void check_metadata(const MappedFile& file, const json& metadata) {
  const std::string where = file.path().string() + ": __metadata__";
  if (!metadata.is_object())
    refuse(where, std::string("is of type ") + metadata.type_name() + ", expected an object");
  for (const auto& [key, value] : metadata.items())
    if (!value.is_string())
      refuse(where, "value of " + quoted(key) + " is of type " + value.type_name() +
                        ", expected a string");
}

// Every byte of the data belongs to exactly one tensor.
void check_contiguous(const MappedFile& file, const std::map<std::string, StoredTensor>& tensors,
                      std::span<const std::byte> data) {
  std::vector<const StoredTensor*> in_order;
  for (const auto& [name, tensor] : tensors) in_order.push_back(&tensor);
  std::sort(in_order.begin(), in_order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return std::pair(a->data, a->bytes) < std::pair(b->data, b->bytes);
  });
  uint64_t end = 0;
  for (const StoredTensor* tensor : in_order) {
    const uint64_t begin = tensor->data - data.data();
    if (begin != end)
      refuse(file.path().string() + ": tensor " + quoted(tensor->stored_name),
             "data_offsets begin at " + std::to_string(begin) + ", expected " +
                 std::to_string(end) + (begin < end ? " (overlap)" : " (gap)"));
    end = begin + tensor->bytes;
  }
  if (end != data.size())
    refuse(file.path().string(), "holds " + std::to_string(data.size()) +
                                     " bytes of data, expected the " + std::to_string(end) +
                                     " that its tensors take");
}

const MappedFile& map_file(const fs::path& path,
                           std::vector<std::shared_ptr<const MappedFile>>& files) {
  return *files.emplace_back(std::make_shared<const MappedFile>(path));
}

// A shard's name comes from a file that may be hostile: it must stay within the folder.
void check_shard_name(const fs::path& index, const std::string& name) {
  const bool plain =
      !name.empty() && name != "." && name != ".." &&
      name.find_first_of("/\\") == std::string::npos &&
      std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (!plain)
    refuse(index.string(), "weight_map names the file " + quoted(name) +
                               ", expected a plain file name in the same folder");
}

// Tensor name -> shard. `metadata.total_size` is not checked: it is often wrong, and nothing needs
// it.
std::map<std::string, std::string> read_index(const fs::path& index) {
  const json document = read_json_file(index, longest_header);
  if (!document.is_object() || !document.contains("weight_map") ||
      !document["weight_map"].is_object() || document["weight_map"].empty())
    refuse(index.string(), "has no weight_map, expected an object from tensor names to file names");
  std::map<std::string, std::string> shard_of;
  for (const auto& [name, shard] : document["weight_map"].items()) {
    if (!shard.is_string())
      refuse(index.string(), "weight_map value of " + quoted(name) + " is of type " +
                                 shard.type_name() + ", expected a file name");
    check_shard_name(index, shard.get_ref<const std::string&>());
    shard_of[name] = shard.get<std::string>();
  }
  return shard_of;
}

constexpr const char* index_name = "model.safetensors.index.json";
constexpr const char* from_one_model = "download the index and all its shards again";

// LLaMA-1 conversions left tables of RoPE frequencies in the shards, not always in the index.
bool is_stray(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq");
}

void add_shard(std::map<std::string, StoredTensor>& all, const MappedFile& file,
               const std::string& shard, const std::map<std::string, std::string>& shard_of) {
  for (auto& [name, tensor] : read_safetensors(file)) {
    const auto expected = shard_of.find(name);
    if (expected == shard_of.end() && is_stray(name)) continue;
    if (expected == shard_of.end() || expected->second != shard)
      refuse(file.path().string(),
             "holds tensor " + quoted(name) + ", expected only those that " + index_name +
                 " puts there (this one " +
                 (expected == shard_of.end() ? "it does not name)"
                                             : "in " + quoted(expected->second) + ")"),
             from_one_model);
    all.emplace(name, tensor);
  }
}

void rename_tensor(std::map<std::string, StoredTensor>& tensors, const std::string& from,
                   const std::string& to) {
  auto node = tensors.extract(from);
  node.key() = to;
  tensors.insert(std::move(node));
}

// transformers also writes, and reads, the same weights under other names: LlamaModel's without
// "model.", and of a tied pair only the head.
void use_one_naming(std::map<std::string, StoredTensor>& tensors, const json& config) {
  const std::string prefix = "model.", embedding = "embed_tokens.weight", head = "lm_head.weight";
  if (tensors.contains(embedding) && !tensors.contains(prefix + embedding)) {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors)
      if (name.starts_with("embed_tokens.") || name.starts_with("layers.") ||
          name.starts_with("norm."))
        names.push_back(name);
    for (const std::string& name : names)
      if (!tensors.contains(prefix + name)) rename_tensor(tensors, name, prefix + name);
  }
  const auto tied = config.find("tie_word_embeddings");
  const bool is_tied = tied != config.end() && *tied == true;
  if (is_tied && tensors.contains(head) && !tensors.contains(prefix + embedding))
    rename_tensor(tensors, head, prefix + embedding);
}

}  // namespace

std::map<std::string, StoredTensor> read_safetensors(const MappedFile& file) {
  const json header = read_header(file);
  const std::span<const std::byte> data =
      file.bytes().subspan(8 + load<uint64_t>(file.bytes().data()));
  std::map<std::string, StoredTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__")
      check_metadata(file, entry);
    else
      tensors.emplace(name, read_entry(file, name, entry, data));
  }
  check_contiguous(file, tensors, data);
  return tensors;
}

namespace {
void read_files(const fs::path& folder, std::vector<std::shared_ptr<const MappedFile>>& files,
                std::map<std::string, StoredTensor>& tensors) {
  // In transformers' order: the single file wins over an index beside it.
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / index_name;
  if (is_present(single)) {
    tensors = read_safetensors(map_file(single, files));
    return;
  }
  if (!is_present(index)) return;
  const std::map<std::string, std::string> shard_of = read_index(index);
  std::set<std::string> shards;
  for (const auto& [name, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) {
    const MappedFile& file = map_file(folder / shard, files);
    add_shard(tensors, file, shard, shard_of);
  }
  for (const auto& [name, shard] : shard_of)
    if (!tensors.contains(name))
      refuse((folder / shard).string(),
             "holds no tensor " + quoted(name) + ", expected as " + index_name + " puts it there",
             from_one_model);
}
}  // namespace

void read_safetensors_folder(Checkpoint& checkpoint) {
  read_files(checkpoint.path_, checkpoint.files_, checkpoint.tensors_);
  use_one_naming(checkpoint.tensors_, checkpoint.metadata_->config);
}

}  // namespace sinkref
