#pragma once

#include "verify/golden.h"
#include "measure/panel.h"

// Can these numbers be trusted? Error against true float64, beside Hugging Face's own.

namespace sinkref {

struct Goldens {
  std::vector<GoldenResult> files;
  bool agree() const;
};

// What `verify` says of a golden file too.
nlohmann::ordered_json golden_json(const GoldenResult& golden);
void print_goldens(const std::vector<GoldenResult>& goldens);

void measure_goldens(const Experiment& experiment, Results& results);
double goldens_work(const Experiment& experiment, const Results& results);
void goldens_json(const Experiment&, const Results& results, bool with_curves,
                  nlohmann::ordered_json& j);
void goldens_page(const PageContext& context, Page& page);
void goldens_text(const Experiment&, const Results& results);

}  // namespace sinkref
