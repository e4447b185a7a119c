#pragma once

#include <string>
#include <utility>
#include <vector>

#include "page/chart.h"

// A page of findings, figures and tables, in one HTML file. It knows no result: what it shows is
// put together where it is measured.

namespace sinkref {

/// One line of the table at the top: a question anybody can ask, the answer, and how it is decided.
/// `control`: what the same measurement gives where the cause is missing.
struct Finding {
  std::string question, answer, how, section;
  std::string control = {};
};

struct Table {
  std::string caption;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  bool listing = false;  ///< long and without a verdict: may be folded
};

struct Section {
  std::string id, title, intro;
  std::vector<Figure> figures;
  std::vector<Table> tables;
  size_t number = 0;  ///< stands before the title
  std::vector<std::string> remarks = {};  ///< how numbers of the section go together
};

struct Page {
  std::string title;         ///< the model
  std::string introduction;  ///< HTML
  std::string command;       ///< that made it
  std::vector<std::pair<std::string, std::string>> facts;  ///< "weights", "0a1b…"
  std::vector<Finding> findings;
  std::vector<Section> sections;
  std::vector<std::string> notes;  ///< what the readers of the model's files noticed
  std::string json;          ///< report.json, to be downloaded from the page

  /// Brings the sections into the order of their numbers and numbers them anew from 1.
  void number_sections();
  /// The section with this id; throws std::out_of_range where there is none.
  Section& section(const std::string& id);
};

/// One HTML file that needs no network and no script.
std::string page_html(const Page& page);

}  // namespace sinkref
