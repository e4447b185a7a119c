#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sinkref {

/// Which of `names` (at least one) was meant by `given`: the one that holds it with the fewest slips.
/// A part of a name is as good as the whole ("resid_post" for "blocks.*.hook_resid_post"); of equals
/// the shortest, then the first.
std::string closest_name(std::string_view given, const std::vector<std::string>& names);

/// "; did you mean NAME?", or nothing where no name is near.
std::string did_you_mean(std::string_view given, const std::vector<std::string>& names);

}  // namespace sinkref
