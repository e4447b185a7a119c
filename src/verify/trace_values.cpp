#include "verify/trace_values.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/readers.h"
#include "sinkref/error.h"

namespace sinkref {

namespace {

constexpr const char* remedy = "write the file again";

std::string expected_shape(const std::vector<uint64_t>& shape) {
  std::string text = "[";
  for (uint64_t extent : shape)
    text += (text.size() > 1 ? ", " : "") +
            (extent == any_extent ? std::string("1 or more") : std::to_string(extent));
  return text + "]";
}

/// A whole number, which may be beyond every integer's range.
std::string whole(double number) {
  const std::string digits = std::to_string(number);
  return digits.substr(0, digits.find('.'));
}

}  // namespace

std::string dtype_text(const StoredTensor& tensor) {
  return tensor.unsupported_dtype.empty() ? dtype_info(tensor.dtype).name : tensor.unsupported_dtype;
}

std::vector<double> checked_values(const TraceFile& file, const std::string& name,
                                   const std::vector<uint64_t>& shape,
                                   std::initializer_list<const char*> dtypes) {
  const std::string where = file.path().string() + ": tensor " + quoted(name);
  if (!file.has(name)) refuse(where, "is not there, expected it", remedy);
  const StoredTensor& tensor = file.tensor(name);
  const auto fits = [](uint64_t found, uint64_t wanted) {
    return wanted == any_extent ? found >= 1 : found == wanted;
  };
  if (!std::equal(tensor.shape.begin(), tensor.shape.end(), shape.begin(), shape.end(), fits))
    refuse(where, "has the shape " + shape_text(tensor.shape) + ", expected " + expected_shape(shape),
           remedy);
  const std::string dtype = dtype_text(tensor);
  if (std::find(dtypes.begin(), dtypes.end(), dtype) == dtypes.end()) {
    std::string wanted;
    for (const char* one : dtypes) wanted += (wanted.empty() ? "" : " or ") + std::string(one);
    refuse(where, "has the dtype " + dtype + ", expected " + wanted, remedy);
  }
  return file.values(name);
}

std::vector<int> checked_ids(const TraceFile& file, const std::string& name,
                             const std::vector<uint64_t>& shape, size_t vocab_size) {
  std::vector<int> ids;
  for (const double id : checked_values(file, name, shape, {"I64"})) {
    if (!(id >= 0 && id < static_cast<double>(vocab_size)))
      refuse(file.path().string() + ": tensor " + quoted(name),
             "holds " + whole(id) + " at " +
                 std::to_string(ids.size()) + ", expected ids from 0 to " +
                 std::to_string(vocab_size - 1),
             "give the file that belongs to the model");
    ids.push_back(static_cast<int>(id));
  }
  return ids;
}

}  // namespace sinkref
