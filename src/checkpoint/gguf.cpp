// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3:
//
//   "GGUF" | u32 version | u64 tensors | u64 keys | keys | tensor infos | padding | data
//   key:         string name, u32 type, value        string: u64 length, bytes
//   tensor info: string name, u32 n, u64 size[n] (innermost first), u32 type, u64 offset
//
// Tensors lie in the order of their infos, each starting at the next multiple of the alignment.
#include "arithmetic/dtypes.h"
#include "checkpoint/gguf_metadata.h"
#include "checkpoint/gguf_names.h"
#include "checkpoint/gguf_reader.h"
#include "checkpoint/metadata.h"

namespace sinkref {

using nlohmann::json;

namespace {

// Far above every real file, low enough to bound memory.
constexpr uint64_t longest_name = 64;  // GGML_MAX_NAME
constexpr uint32_t largest_alignment = 1u << 24;

// Numbers of types that have been taken out of the format.
struct RemovedType {
  uint32_t number;
  const char* name;
};

constexpr RemovedType removed_types[] = {
    {4, "Q4_2"},      {5, "Q4_3"},         {31, "Q4_0_4_4"},    {32, "Q4_0_4_8"},
    {33, "Q4_0_8_8"}, {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"},
};

const DTypeRow& file_dtype(const GgufReader& in, uint32_t number, const std::string& what) {
  if (const DTypeRow* known = dtype_numbered(number)) return *known;
  for (const RemovedType& removed : removed_types)
    if (removed.number == number)
      in.fail(what + " has the type " + removed.name +
                  ", which has been taken out of the format, expected one that it has",
              "get or convert the model again");
  const auto by_number = [](const DTypeRow& a, const DTypeRow& b) { return a.ggml < b.ggml; };
  const std::span<const DTypeRow> all = dtype_table();
  const DTypeRow& last = *std::max_element(all.begin(), all.end(), by_number);
  in.fail(what + " has the unknown ggml type " + std::to_string(number) + ", expected F32 (0) to " +
          last.info.name + " (" + std::to_string(last.ggml) + ")");
}

std::vector<uint64_t> read_shape(GgufReader& in, const std::string& what) {
  const uint32_t dimensions = in.number<uint32_t>(what);
  if (dimensions < 1 || dimensions > 4)
    in.fail(what + " has " + std::to_string(dimensions) + " dimensions, expected 1 to 4");
  std::vector<uint64_t> shape(dimensions);
  for (uint64_t& size : shape) {
    size = in.number<uint64_t>(what);
    if (size == 0 || size > INT64_MAX)
      in.fail(what + " has a dimension of " + std::to_string(size) + ", expected 1 to 2^63-1");
  }
  std::reverse(shape.begin(), shape.end());
  return shape;
}

uint64_t bytes_of(const GgufReader& in, const std::vector<uint64_t>& shape, const DTypeInfo& dtype,
                  const std::string& what) {
  if (shape.back() % dtype.block != 0)
    in.fail(what + " has rows of " + std::to_string(shape.back()) +
            " elements, expected a multiple of " + dtype.name + "'s block of " +
            std::to_string(dtype.block));
  std::vector<uint64_t> factors = shape;
  factors.back() /= dtype.block;
  factors.push_back(dtype.bytes);
  const std::optional<uint64_t> bytes = product(factors);
  if (!bytes)
    in.fail(what + " has shape " + shape_text(shape) +
            ", which overflows 64 bits, expected a size that a file can have");
  return *bytes;
}

struct TensorInfo {
  StoredTensor tensor;
  uint64_t offset;
};

TensorInfo read_info(GgufReader& in, uint64_t index) {
  TensorInfo info;
  info.tensor.stored_name = in.string("name of tensor " + std::to_string(index), longest_name);
  const std::string what = "tensor " + quoted(info.tensor.stored_name);
  info.tensor.shape = read_shape(in, what);
  const DTypeRow& dtype = file_dtype(in, in.number<uint32_t>(what), what);
  if (dtype.dtype)
    info.tensor.dtype = *dtype.dtype;
  else
    info.tensor.unsupported_dtype = dtype.info.name;
  info.tensor.bytes = bytes_of(in, info.tensor.shape, dtype.info, what);
  info.offset = in.number<uint64_t>(what);
  return info;
}

uint64_t alignment(const GgufReader& in, const std::map<std::string, json>& metadata) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return 32;
  const json& value = found->second;
  if (!value.is_number_unsigned() || value > largest_alignment || value < 8u ||
      !std::has_single_bit(value.get<uint64_t>()))
    in.fail("metadata \"general.alignment\" is " +
            quoted(value.dump(-1, ' ', true, json::error_handler_t::replace)) +
            ", expected a power of two from 8 to 2^24");
  return value.get<uint64_t>();
}

// `end` is below 2^63 as it has been compared with the file's size, so this cannot overflow.
uint64_t padded(uint64_t end, uint64_t alignment) {
  return (end + alignment - 1) / alignment * alignment;
}

// Sets each tensor's place; the data start at the next multiple of the alignment after the header.
void place(const GgufReader& in, std::span<const std::byte> file, std::vector<TensorInfo>& infos,
           uint64_t alignment) {
  const uint64_t start = padded(in.position(), alignment);
  const uint64_t size = start < file.size() ? file.size() - start : 0;
  uint64_t next = 0;
  uint64_t end = 0;
  for (TensorInfo& info : infos) {
    const std::string what = "tensor " + quoted(info.tensor.stored_name);
    if (info.offset != next)
      in.fail(what + " lies at offset " + std::to_string(info.offset) + ", expected " +
              std::to_string(next) + " (contiguous, alignment " + std::to_string(alignment) + ")");
    if (next > size || info.tensor.bytes > size - next)
      in.fail(what + " ends at byte " + std::to_string(start + next) + " + " +
                  std::to_string(info.tensor.bytes) + ", expected to end within the file's " +
                  std::to_string(file.size()) + " bytes",
              "it is truncated, download it again");
    info.tensor.data = file.data() + start + next;
    end = next + info.tensor.bytes;
    next = padded(end, alignment);
  }
  if (size > next)
    in.fail("holds " + std::to_string(size - next) + " bytes after its last tensor, expected none");
}

uint64_t read_count(GgufReader& in, const std::string& what, uint64_t least_bytes_each) {
  const uint64_t count = in.number<uint64_t>("the number of " + what);
  if (count > in.left() / least_bytes_each)
    in.fail("claims " + std::to_string(count) + " " + what + ", expected at most the " +
            std::to_string(in.left() / least_bytes_each) + " that its " +
            std::to_string(in.left()) + " bytes can hold");
  return count;
}

void check_magic_and_version(GgufReader& in) {
  if (in.starts_with("version https://git-lfs"))
    in.fail("is a git-lfs pointer, expected the GGUF file itself", "run git lfs pull");
  if (in.starts_with("<"))
    in.fail("starts like a web page, expected \"GGUF\" as its first four bytes",
            "download the file itself");
  const uint32_t magic = in.left() < 4 ? 0 : in.number<uint32_t>("magic");
  if (magic != 0x46554747)  // "GGUF"
    in.fail("is no GGUF file, expected \"GGUF\" as its first four bytes");
  const uint32_t version = in.number<uint32_t>("version");
  if (version == 0x02000000 || version == 0x03000000)
    in.fail("is a big-endian GGUF file, expected little-endian", "convert it with gguf-py");
  if (version != 2 && version != 3)
    in.fail("GGUF version is " + std::to_string(version) + ", expected 2 or 3");
}

// What makes a GGUF file something else than a whole dense LLaMA/Mistral model.
void check_model_kind(const GgufReader& in, const std::map<std::string, json>& metadata) {
  const auto value = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? json() : found->second;
  };
  const json architecture = value("general.architecture");
  if (!architecture.is_string())
    in.fail("metadata \"general.architecture\" is missing, expected \"llama\"");
  if (architecture != "llama")
    in.fail("general.architecture is " + quoted(architecture.get<std::string>()) +
                ", expected \"llama\" (LLaMA and Mistral models)",
            "sinkref runs no other; choose another model");
  const json split = value("split.count");
  if (split.is_number() && split > 1)
    in.fail("is one of " + split.dump() + " files (split.count), expected a whole model",
            "merge them with llama-gguf-split --merge");
}

// Hugging Face's names in a GGUF file leave open in which order the rows of q and k lie.
void check_name(const GgufReader& in, const std::string& name) {
  if (name.starts_with("model.") || name.starts_with("layers.") || name == "lm_head.weight")
    in.fail("holds tensor " + quoted(name) + " under Hugging Face's name, expected GGUF's as " +
                "\"blk.0.attn_q.weight\"",
            "convert the model with llama.cpp's convert_hf_to_gguf.py");
}

// q and k of GGUF's llama architecture are interleaved, so their head dimension must be known.
uint64_t head_dim_of(const GgufReader& in, const std::map<std::string, json>& metadata) {
  const auto size = [&](const std::string& key) -> uint64_t {
    const auto found = metadata.find(key);
    if (found == metadata.end())
      in.fail("metadata " + quoted(key) + " is missing, expected a positive integer");
    if (!found->second.is_number_unsigned() || found->second == 0u)
      in.fail("metadata " + quoted(key) + " is of another kind, expected a positive integer");
    return found->second.get<uint64_t>();
  };
  if (metadata.count("llama.attention.key_length")) return size("llama.attention.key_length");
  const uint64_t width = size("llama.embedding_length");
  return width / size("llama.attention.head_count");
}

void mark_interleaved(const GgufReader& in, StoredTensor& tensor, uint64_t head_dim) {
  if (head_dim == 0 || head_dim % 2 != 0 || tensor.shape[0] % head_dim != 0)
    in.fail("tensor " + quoted(tensor.stored_name) + " has shape " + shape_text(tensor.shape) +
            ", expected heads of an even head dimension; the metadata give " +
            std::to_string(head_dim));
  tensor.interleaved_head_dim = head_dim;
}

/// Reads up to the first tensor's info, and returns the number of tensors.
uint64_t read_header(GgufReader& in, std::map<std::string, json>& metadata) {
  check_magic_and_version(in);
  const uint64_t tensor_count = read_count(in, "tensors", 8 + 4 + 8 + 4 + 8);
  const uint64_t key_count = read_count(in, "metadata keys", 8 + 4 + 1);
  read_metadata(in, key_count, metadata);
  return tensor_count;
}

}  // namespace

std::shared_ptr<const CheckpointMetadata> Checkpoint::whole_metadata() const {
  if (!is_gguf_) return metadata_;
  auto whole = std::make_shared<CheckpointMetadata>();
  GgufReader in(*files_.front());
  read_header(in, whole->gguf);
  return whole;
}

void read_gguf(Checkpoint& checkpoint) {
  const MappedFile& file =
      *checkpoint.files_.emplace_back(std::make_shared<const MappedFile>(checkpoint.path_));
  GgufReader in(file);
  auto owned = std::make_shared<CheckpointMetadata>();
  std::map<std::string, json>& metadata = owned->gguf;
  checkpoint.metadata_ = owned;
  const uint64_t tensor_count = read_header(in, metadata);
  check_model_kind(in, metadata);
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < tensor_count; ++i) infos.push_back(read_info(in, i));
  place(in, file.bytes(), infos, alignment(in, metadata));
  for (TensorInfo& info : infos) {
    info.tensor.file = checkpoint.path_;
    check_name(in, info.tensor.stored_name);
    const std::string name = hugging_face_name(info.tensor.stored_name);
    if (is_rotated(info.tensor.stored_name))
      mark_interleaved(in, info.tensor, head_dim_of(in, metadata));
    const auto [where, added] = checkpoint.tensors_.emplace(name, info.tensor);
    if (!added)
      in.fail("tensor " + quoted(info.tensor.stored_name) + " stands twice in the file (" +
              quoted(name) + "), expected once");
  }
}

}  // namespace sinkref
