#include "model/fingerprint.h"

#include "base/sha256.h"
#include "sinkref/kernels.h"

namespace sinkref {

template <class T>
void Fingerprint<T>::attach(Hooks<T>& hooks) {
  hooks.add({HookPoint::Logits, 0}, [this](const Activation<T>& logits) {
    for (size_t r = 0; r < logits.rows.size(); ++r) {
      if (!logits.rows[r].prompt) continue;
      Sha256 hash;
      hash.update(logits.row(r), logits.width * sizeof(T));
      rows_[{logits.rows[r].sequence, logits.rows[r].position}] = hash.finish();
    }
  });
}

template <class T>
std::string Fingerprint<T>::text(const Model& model) const {
  return text(model.weights_sha256(model.config().layers));
}

template <class T>
std::string Fingerprint<T>::text(const std::string& weights_sha256) const {
  Sha256 hash;
  for (const auto& [where, digest] : rows_) {
    const std::string line = std::to_string(where.first) + "|" + std::to_string(where.second) + "|" +
                             digest + "\n";
    hash.update(line.data(), line.size());
  }
  return std::to_string(arithmetic_version) + "-" + weights_sha256.substr(0, 12) + "-" +
         hash.finish().substr(0, 16);
}

template class Fingerprint<float>;
template class Fingerprint<double>;

}  // namespace sinkref
