#include <algorithm>

#include "base/json_file.h"
#include "measure/goldens/panel.h"

namespace sinkref {

bool Goldens::agree() const {
  return std::all_of(files.begin(), files.end(), [](const GoldenResult& g) { return g.agrees; });
}

double goldens_work(const Experiment& e, const Results&) {
  double work = 0;
  for (const std::string& file : e.goldens) work += golden_work(e.model, file);
  return work;
}

void measure_goldens(const Experiment& e, Results& results) {
  Goldens goldens;
  for (const std::string& file : e.goldens) {
    e.progress->step("golden " + file, golden_work(e.model, file));
    goldens.files.push_back(compare_with_golden(e.model, e.run.kernel, file));
    goldens.files.back().file = valid_utf8(goldens.files.back().file);
  }
  if (!goldens.files.empty()) results.put(std::move(goldens));
}

}  // namespace sinkref
