#include "cli/reach.h"

#include <fstream>
#include <limits>

namespace sinkref::cli {

namespace {

constexpr double longest = 3600;

/// Bytes that the system can give; without limit where it does not say.
double available_memory() {
  std::ifstream info("/proc/meminfo");
  for (std::string name, unit; info >> name;) {
    double kilobytes = 0;
    info >> kilobytes;
    std::getline(info, unit);
    if (name == "MemAvailable:") return kilobytes * 1024;
  }
  return std::numeric_limits<double>::infinity();
}

std::string duration_text(double seconds) {
  const auto whole = [](double x) { return std::to_string(static_cast<long>(x + 1)); };
  if (seconds < 120) return whole(seconds) + " s";
  return seconds < 7200 ? whole(seconds / 60) + " minutes" : whole(seconds / 3600) + " hours";
}

}  // namespace

std::string estimate_text(const CertifyCost& cost) {
  return "it will take about " + duration_text(cost.seconds()) + " and " +
         std::to_string(static_cast<long>(cost.bytes / 1e6) + 1) + " MB beside the weights";
}

std::string out_of_reach(const CertifyCost& cost) {
  const double free = available_memory();
  if (cost.seconds() <= longest && cost.bytes <= free) return {};
  return estimate_text(cost) + ", expected at most an hour and " + std::to_string(static_cast<long>(free / 1e6)) + " MB";
}

}  // namespace sinkref::cli
