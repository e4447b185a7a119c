#pragma once

#include <string>
#include <vector>

namespace sinkref::cli {

/// "1,2,5x100". Throws InputError, which names `option`.
std::vector<int> parse_ids(const std::string& text, const std::string& option);

/// Places among `count` in the order given, as "0,5,-1": negative ones count from the end, each comes once. "all" is all.
/// `what` they are is named in errors: "position".
std::vector<size_t> parse_places(const std::string& list, size_t count, const std::string& option,
                                 const std::string& what);

/// One list per sequence: a file of a JSON list of ids, or of a list of such lists.
std::vector<std::vector<int>> read_ids_file(const std::string& file);

}  // namespace sinkref::cli
