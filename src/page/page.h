#pragma once

#include <string>
#include <vector>

#include "measure/section.h"

namespace sinkref {

struct Page {
  std::string title;                 ///< the model
  std::string command;               ///< that made it
  std::vector<std::pair<std::string, std::string>> facts;  ///< "weights", "0a1b…"
  std::vector<Finding> findings;
  std::vector<Section> sections;
  std::string json;                  ///< report.json, to be downloaded from the page
};

/// One HTML file that needs no network and no script.
std::string page_html(const Page& page);

}  // namespace sinkref
