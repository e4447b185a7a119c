// verify: another implementation's numbers held against the truth.

#include <cstdio>
#include <iostream>

#include "cli/commands.h"
#include "cli/goldens.h"
#include "cli/inputs.h"
#include "sinkref/error.h"

namespace sinkref::cli {

using nlohmann::ordered_json;

namespace {

/// This machine's own run against stored truths.
int verify_goldens(const Options& options) {
  const Model model = Model::open(options.model);
  std::vector<GoldenResult> goldens;
  ordered_json all = ordered_json::array();
  bool agrees = true;
  for (const std::string& file : options.goldens) {
    goldens.push_back(compare_with_golden(model, options.kernel, file));
    all.push_back(golden_json(goldens.back()));
    agrees &= goldens.back().agrees;
  }
  if (options.json)
    std::cout << ordered_json{{"verdict", agrees ? "agree" : "differ"}, {"goldens", all}}.dump(2)
              << '\n';
  else
    print_goldens(goldens);
  return agrees ? 0 : 1;
}

}  // namespace

int verify(const Options& options) {
  if (!options.goldens.empty()) return verify_goldens(options);
  throw InputError("verify: nothing to compare; expected --candidate THEIRS.safetensors, two traces, "
                   "or --golden FILE");
}

}  // namespace sinkref::cli
