#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <random>

#include "base/threads.h"
#include "bench/bench.h"
#include "sinkref/error.h"
#include "sinkref/kernels.h"

namespace sinkref {

namespace {

const MatmulShape known_shapes[] = {
    {"llama-2-7b", "q,k,v,o", 4096, 4096},  {"llama-2-7b", "gate,up", 11008, 4096},
    {"llama-2-7b", "down", 4096, 11008},    {"llama-2-7b", "head", 32000, 4096},
    {"llama-3-8b", "q,o", 4096, 4096},      {"llama-3-8b", "k,v", 1024, 4096},
    {"llama-3-8b", "gate,up", 14336, 4096}, {"llama-3-8b", "down", 4096, 14336},
    {"llama-3-8b", "head", 128256, 4096},   {"mistral-7b", "q,o", 4096, 4096},
    {"mistral-7b", "k,v", 1024, 4096},      {"mistral-7b", "gate,up", 14336, 4096},
    {"mistral-7b", "down", 4096, 14336},    {"mistral-7b", "head", 32000, 4096},
    {"smollm2", "q,o", 576, 576},           {"smollm2", "k,v", 192, 576},
    {"smollm2", "gate,up", 1536, 576},      {"smollm2", "down", 576, 1536},
    {"smollm2", "head", 49152, 576}};

/// "4096x11008"
std::vector<MatmulShape> one_matrix(const std::string& text) {
  const size_t x = std::min(text.find('x'), text.size());
  size_t extents[2] = {0, 0};
  const char* begin = text.data();
  const auto first = std::from_chars(begin, begin + x, extents[0]);
  const auto second =
      std::from_chars(begin + std::min(x + 1, text.size()), begin + text.size(), extents[1]);
  const bool whole = first.ec == std::errc() && first.ptr == begin + x &&
                     second.ec == std::errc() && second.ptr == begin + text.size();
  if (!whole || extents[0] < 1 || extents[1] < 1 || extents[0] > 1'000'000 ||
      extents[1] > 1'000'000)
    throw InputError("--shapes " + quoted(text) + ": expected llama-2-7b, llama-3-8b, mistral-7b, "
                     "smollm2 or OUTPUTSxINPUTS as 4096x11008, with commas between");
  return {{"", "", extents[0], extents[1]}};
}

/// Random numbers in their stored form: every one finite and of ordinary size.
std::vector<std::byte> random_weights(size_t outputs, size_t inputs, DType dtype) {
  std::mt19937 generator(1);
  const DTypeInfo& info = dtype_info(dtype);
  std::vector<std::byte> bytes(outputs * inputs / info.block * info.bytes);
  const auto fill = [&]<class Word>(Word, auto next) {
    for (size_t i = 0; i < bytes.size(); i += sizeof(Word)) {
      const Word word = next(generator());
      std::memcpy(&bytes[i], &word, sizeof word);
    }
  };
  // Sign and mantissa at random, with an exponent that gives ±[1/32, 1/16).
  if (dtype == DType::F32)
    fill(uint32_t{}, [](uint32_t r) { return (r & 0x807fffffu) | 0x3d000000u; });
  else if (dtype == DType::F16)
    fill(uint16_t{}, [](uint32_t r) { return static_cast<uint16_t>((r & 0x83ffu) | 0x2800u); });
  else if (dtype == DType::BF16)
    fill(uint16_t{}, [](uint32_t r) { return static_cast<uint16_t>((r & 0x807fu) | 0x3d00u); });
  else  // blocks: no byte above 0x3f, so that every scale is a finite number
    fill(uint8_t{}, [](uint32_t r) { return static_cast<uint8_t>(r & 0x3fu); });
  return bytes;
}

/// Copies of one stored matrix, used in turn so that no cache holds the next.
class Weights {
 public:
  Weights(const StoredMatrix& one, size_t copies) : one_(one) {
    const size_t bytes = one.rows * one.row_bytes();
    for (size_t i = 0; i < copies; ++i) copies_.emplace_back(one.data, one.data + bytes);
  }
  StoredMatrix next() {
    StoredMatrix matrix = one_;
    matrix.data = copies_[used_++ % copies_.size()].data();
    return matrix;
  }

 private:
  StoredMatrix one_;
  std::vector<std::vector<std::byte>> copies_;
  size_t used_ = 0;
};

size_t copies_beyond_caches(const StoredMatrix& w) {
  constexpr size_t enough = size_t(512) << 20;  // as much as the read bandwidth is measured with
  const size_t bytes = w.rows * w.row_bytes();
  return (enough + bytes - 1) / bytes;
}

/// Relative rms error of some of the outputs, the same for every kernel.
double rms_error(const Lines<float>& x, size_t rows, const StoredMatrix& w, const Lines<float>& y) {
  double squares = 0, errors = 0;
  const size_t step = std::max<size_t>(1, w.rows / 64);
  for (size_t n = 0; n < w.rows; n += step) {
    const std::vector<float> weights = widen_row(w, n);
    for (size_t r = 0; r < std::min<size_t>(rows, 4); ++r) {
      double exact = 0;
      for (size_t k = 0; k < w.cols; ++k)
        exact += static_cast<double>(x[r * w.cols + k]) * static_cast<double>(weights[k]);
      errors += std::pow(static_cast<double>(y[r * w.rows + n]) - exact, 2);
      squares += exact * exact;
    }
  }
  return std::sqrt(errors / squares);
}

}  // namespace

std::vector<MatmulShape> matmul_shapes(const std::string& names) {
  std::vector<MatmulShape> shapes;
  const auto add = [&](const MatmulShape& shape) {
    for (MatmulShape& known : shapes)
      if (known.outputs == shape.outputs && known.inputs == shape.inputs) {
        if (!shape.model.empty() && known.model.find(shape.model) == std::string::npos)
          known.model += "+" + shape.model;
        return;
      }
    shapes.push_back(shape);
  };
  for (size_t begin = 0; begin <= names.size();) {
    const size_t comma = std::min(names.find(',', begin), names.size());
    const std::string name = names.substr(begin, comma - begin);
    std::vector<MatmulShape> found;
    for (const MatmulShape& shape : known_shapes)
      if (shape.model == name) found.push_back(shape);
    if (found.empty()) found = one_matrix(name);
    for (const MatmulShape& shape : found) add(shape);
    begin = comma + 1;
  }
  return shapes;
}

MatmulTiming time_matmul(const MatmulShape& shape, size_t rows, DType dtype,
                         const std::string& kernel, size_t rounds) {
  const DTypeInfo& info = dtype_info(dtype);
  if (shape.inputs % info.block != 0)
    throw InputError("--dtype " + std::string(info.name) + ": is stored in blocks of " +
                     std::to_string(info.block) + ", which do not divide " +
                     std::to_string(shape.inputs) + " inputs");
  const std::vector<std::byte> bytes = random_weights(shape.outputs, shape.inputs, dtype);
  const StoredMatrix stored{bytes.data(), dtype, shape.outputs, shape.inputs, 0};
  std::vector<float> plain(shape.outputs * shape.inputs);
  parallel_for(stored.rows, [&](size_t n) {
    widen(dtype, stored.row(n), 0, stored.cols, plain.data() + n * stored.cols);
  });
  const StoredMatrix widened{reinterpret_cast<const std::byte*>(plain.data()), DType::F32,
                             stored.rows, stored.cols, 0};
  Weights ours(stored, copies_beyond_caches(stored));
  Weights theirs(widened, copies_beyond_caches(widened));

  std::mt19937 generator(2);
  std::normal_distribution<float> normal;
  Lines<float> x(rows * shape.inputs), y(rows * shape.outputs), y_openblas(y.size());  // as a run's
  for (float& value : x) value = normal(generator);
  const Kernels<float>& own = find_kernels<float>(kernel);
  const Kernels<float>& openblas = find_kernels<float>("openblas");
  const std::vector<double> t = alternate(
      {[&] { return seconds_per_call([&] { own.matmul(x.data(), rows, ours.next(), y.data()); }); },
       [&] {
         return seconds_per_call(
             [&] { openblas.matmul(x.data(), rows, theirs.next(), y_openblas.data()); });
       },
       seconds_per_read_byte, seconds_per_flop},
      rounds);
  const double flops = 2.0 * static_cast<double>(rows * shape.outputs * shape.inputs);
  return {t[0], t[1], static_cast<double>(bytes.size()) * t[2] / t[0], flops * t[3] / t[0],
          rms_error(x, rows, stored, y), rms_error(x, rows, stored, y_openblas)};
}

}  // namespace sinkref
