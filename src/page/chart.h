#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

// Figures as SVG, written by the program itself. A figure is a row of small plots of one size, so
// that a page can stack them on a narrow screen; the file of a figure puts them side by side.
// Colours are classes: chart_style() gives them for light and for dark ground.

namespace sinkref {

/// One curve. Points that are not finite (or not positive on a logarithmic axis) are left out. Curves
/// of one plot differ by colour, by the shape of their markers, and dashed ones by hollow markers.
struct Series {
  std::string name;
  std::vector<double> x, y;
  size_t colour = 0;
  enum class Mark { line, dashed, dots } mark = Mark::line;
};

/// A line across the plot, named at its end.
struct Rule {
  std::string name;
  double at = 0;
  bool vertical = false;
};

struct Axis {
  std::string title;
  bool logarithmic = false;
  std::vector<std::string> names = {};  ///< what stands at 1, 2, …, in place of the numbers
};

struct LineChart {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
  std::vector<Rule> rules;
  /// Points on top of the curves, which the legend and the CSV leave out; the colour names the curve.
  std::vector<Series> marks = {};
};

/// Values of a matrix as shades. Rows may be shorter than the longest (a causal map).
struct HeatMap {
  std::string title, x_title, y_title, value_title;
  std::vector<std::vector<double>> rows;  ///< the first at the top
  std::vector<double> x = {};             ///< what the columns stand for; empty: 0, 1, 2, …
  std::vector<double> y = {};             ///< the same for the rows
  bool is_signed = false;                 ///< shades diverge from zero
  std::vector<Rule> rules = {};           ///< before the first column or row that is not below
  std::optional<std::pair<double, double>> range = {};  ///< of the shades; by default the values'
};

/// A table whose cells have a kind each, shown as colour, and a text that says the same.
struct Grid {
  std::string title, x_title;
  std::vector<std::string> columns, rows;
  struct Cell {
    std::string text;
    size_t kind = 0;  ///< index into kinds
  };
  std::vector<std::vector<Cell>> cells;  ///< [row][column]
  std::vector<std::string> kinds;        ///< explained under the table
};

using Plot = std::variant<LineChart, HeatMap, Grid>;

struct Figure {
  std::string id;       ///< file name and anchor
  std::string title;    ///< what it shows
  std::string caption;  ///< definitions
  std::string command;  ///< that gives the numbers behind it
  std::vector<Plot> plots;
  std::string input = {};  ///< what the ids in `command` are
};

/// One scale of shades for all heat maps of the figure.
void share_scale(Figure& figure);

inline constexpr double plot_width = 460, plot_height = 320;

/// One plot as an <svg> element with a title for screen readers.
std::string plot_svg(const Plot& plot, double x = 0, double y = 0);
/// The whole figure as a file of its own, on white.
std::string figure_svg(const Figure& figure);
/// The numbers of a figure: for each plot its title, the names of its columns and their values.
std::string figure_csv(const Figure& figure);

/// CSS of the classes used, for a light or a dark ground.
std::string chart_style(bool dark);

/// &, <, > and quotes as entities.
std::string escaped(const std::string& text);

}  // namespace sinkref
