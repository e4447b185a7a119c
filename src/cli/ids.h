#pragma once

#include <string>
#include <vector>

namespace sinkref::cli {

/// "1,2,5x100". Throws InputError, which names `option`.
std::vector<int> parse_ids(const std::string& text, const std::string& option);

/// One list per sequence: a file of a JSON list of ids, or of a list of such lists.
std::vector<std::vector<int>> read_ids_file(const std::string& file);

}  // namespace sinkref::cli
