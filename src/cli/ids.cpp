#include "cli/ids.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>

#include "base/json_file.h"
#include "base/split.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

int one_id(std::string_view text, const std::string& option) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || value < 0)
    refuse(option, quoted(std::string(text)) + " is not a token id, expected 0 to 2147483647",
           "give whole numbers as 1,2,3");
  return value;
}

constexpr const char* list_remedy = "give a JSON list of whole numbers, or a list of such lists";

std::vector<int> json_ids(const nlohmann::json& list, const std::string& file) {
  std::vector<int> ids;
  if (list.empty()) refuse(file, "holds an empty list, expected token ids", list_remedy);
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > 2147483647)
      refuse(file, "holds " + quoted(id.dump().substr(0, 40)) + ", expected token ids",
             list_remedy);
    ids.push_back(id.get<int>());
  }
  return ids;
}

}  // namespace

std::vector<int> parse_ids(const std::string& text, const std::string& option) {
  std::vector<int> ids;
  if (text.empty())
    refuse(option, "is empty, expected at least one token id", "give whole numbers as 1,2,3");
  for (const std::string_view part : split(text, ',')) {
    const size_t times = part.find('x');
    const int id = one_id(part.substr(0, times), option);
    const std::string_view repeats = times == std::string_view::npos ? "1" : part.substr(times + 1);
    int count = 0;
    const auto [end, error] =
        std::from_chars(repeats.data(), repeats.data() + repeats.size(), count);
    if (error != std::errc() || end != repeats.data() + repeats.size() || count < 1 ||
        count > 1'000'000)
      refuse(option,
             quoted(std::string(part)) + " is not a repeated token, expected 1 to 1000000 times",
             "give it as TOKENxTIMES, as 5x100");
    if (part.starts_with("0x"))
      refuse(option, quoted(std::string(part)) + " looks hexadecimal, expected decimal ids",
             "token 0 is repeated as 0,0,0");
    constexpr size_t most = 10'000'000;
    if (ids.size() + static_cast<size_t>(count) > most)
      refuse(option, "holds more tokens, expected at most " + std::to_string(most), "shorten it");
    ids.insert(ids.end(), static_cast<size_t>(count), id);
  }
  return ids;
}

std::vector<size_t> parse_places(const std::string& list, size_t count, const std::string& option,
                                 const std::string& what) {
  std::vector<size_t> places;
  if (list == "all") {
    places.resize(count);
    std::iota(places.begin(), places.end(), size_t{0});
    return places;
  }
  const long n = static_cast<long>(count);
  for (const std::string_view part : split(list, ',')) {
    long place = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), place);
    if (error != std::errc() || end != part.data() + part.size() || part.empty() || place < -n || place >= n)
      refuse(option + " " + quoted(list), "there is no " + what + " " + quoted(std::string(part)) + ", expected " +
             std::to_string(-n) + " to " + std::to_string(n - 1), "give numbers as 0,5,-1");
    places.push_back(static_cast<size_t>(place < 0 ? place + n : place));
    if (std::count(places.begin(), places.end(), places.back()) > 1)
      refuse(option + " " + quoted(list), what + " " + std::to_string(places.back()) + " comes twice, expected once",
             "leave one out");
  }
  return places;
}

std::vector<std::vector<int>> read_ids_file(const std::string& file) {
  const nlohmann::json list = read_json_file(file);
  if (!list.is_array() || list.empty())
    refuse(file,
           std::string("holds JSON of type ") + list.type_name() + (list.empty() ? ", empty" : "") +
               ", expected token ids",
           list_remedy);
  if (!list[0].is_array()) return {json_ids(list, file)};
  std::vector<std::vector<int>> batch;
  for (const nlohmann::json& sequence : list) {
    if (!sequence.is_array())
      refuse(file, "mixes token ids and lists, expected one or the other", list_remedy);
    batch.push_back(json_ids(sequence, file));
  }
  return batch;
}

}  // namespace sinkref::cli
