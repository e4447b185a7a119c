// Matrices as shades, and tables of kinds.

#include <algorithm>
#include <cstdio>

#include "page/svg.h"

namespace sinkref::svg {

namespace {

constexpr size_t shades = 12;

/// "h" for shades from light to dark, "d" for those that diverge from the middle.
std::string shade_class(const HeatMap& map, size_t shade) {
  return (map.is_signed ? "d" : "h") + std::to_string(shade);
}

/// What the shades run over: the range that was given, or the values', around zero if signed.
std::pair<double, double> range_of(const HeatMap& map) {
  if (map.range) return *map.range;
  double low = INFINITY, high = -INFINITY;
  for (const std::vector<double>& row : map.rows)
    for (double value : row)
      if (std::isfinite(value)) {
        low = std::min(low, value);
        high = std::max(high, value);
      }
  if (!std::isfinite(low)) return {0, 1};
  if (map.is_signed) high = std::max(std::fabs(low), std::fabs(high)), low = -high;
  if (!(low < high)) high = low + 1;
  return {low, high};
}

/// All cells of one shade as one path: a map of thousands of cells stays small.
std::string shaded_cells(const HeatMap& map, const Scale& values, double left, double top,
                         double width, double height) {
  std::vector<std::string> paths(shades);
  const std::string cell = "h" + px(width + 0.3) + "v" + px(height + 0.3) + "h" + px(-width - 0.3) + "z";
  for (size_t r = 0; r < map.rows.size(); ++r)
    for (size_t c = 0; c < map.rows[r].size(); ++c) {
      if (!values.shows(map.rows[r][c])) continue;
      const size_t shade =
          std::min(shades - 1, static_cast<size_t>(values(map.rows[r][c]) * double(shades)));
      paths[shade] += "M" + px(left + double(c) * width) + " " + px(top + double(r) * height) + cell;
    }
  std::string out;
  for (size_t shade = 0; shade < shades; ++shade)
    if (!paths[shade].empty())
      out += "<path class=\"" + shade_class(map, shade) + "\" d=\"" + paths[shade] + "\"/>\n";
  return out;
}

/// Three digits: the bar stands at the edge.
std::string short_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

std::string shade_bar(const HeatMap& map, double low, double high, double x, double top,
                      double bottom) {
  std::string out;
  const double height = (bottom - top) / double(shades);
  for (size_t shade = 0; shade < shades; ++shade)
    out += "<path class=\"" + shade_class(map, shade) + "\" d=\"M" + px(x) + " " +
           px(bottom - double(shade + 1) * height) + "h12v" + px(height + 0.3) + "h-12z\"/>\n";
  out += text(x + 16, top + 9, short_text(high));
  out += text(x + 16, bottom, short_text(low));
  if (map.is_signed) out += text(x + 16, (top + bottom) / 2 + 4, "0");
  return out + turned_text(x + 28 + (map.is_signed ? 10 : 0), (top + bottom) / 2, 90, map.value_title);
}

/// Where a rule stands: before the first of the names that is not below it.
double place_of(const Rule& rule, const std::vector<double>& names, size_t count) {
  if (names.empty()) return std::min(rule.at, static_cast<double>(count));
  return static_cast<double>(std::lower_bound(names.begin(), names.end(), rule.at) - names.begin());
}

}  // namespace

std::string draw(const HeatMap& map, double x, double y) {
  std::string out = open_plot(map.title, x, y);
  const double left = 56, right = plot_width - 76, top = 34, bottom = plot_height - 46;
  size_t columns = 1;
  for (const std::vector<double>& row : map.rows) columns = std::max(columns, row.size());
  const auto [low, high] = range_of(map);
  const double width = (right - left) / double(columns);
  const double height = (bottom - top) / double(std::max<size_t>(map.rows.size(), 1));
  out += shaded_cells(map, Scale{false, low, high, 0, 1, {}}, left, top, width, height);
  const size_t every_column = std::max<size_t>(1, (columns + 7) / 8);
  for (size_t c = (columns - 1) % every_column; c < columns; c += every_column)  // the last is named
    out += text(left + (double(c) + 0.5) * width, bottom + 16,
                tick_text(map.x.empty() ? double(c) : map.x[c]), Anchor::middle);
  const size_t every_row = std::max<size_t>(1, (map.rows.size() + 9) / 10);
  for (size_t r = (std::max<size_t>(map.rows.size(), 1) - 1) % every_row; r < map.rows.size(); r += every_row)
    out += text(left - 6, top + (double(r) + 0.5) * height + 4,
                tick_text(map.y.empty() ? double(r) : map.y[r]), Anchor::end);
  for (const Rule& rule : map.rules) {
    const double at = rule.vertical ? left + place_of(rule, map.x, columns) * width
                                    : top + place_of(rule, map.y, map.rows.size()) * height;
    out += rule.vertical ? "<path class=\"rule\" d=\"M" + px(at) + " " + px(top) + "V" + px(bottom) + "\"/>\n"
                         : "<path class=\"rule\" d=\"M" + px(left) + " " + px(at) + "H" + px(right) + "\"/>\n";
    if (!rule.vertical) out += text(right - 4, at - 4, rule.name, Anchor::end, "cell");
  }
  out += text((left + right) / 2, plot_height - 10, map.x_title, Anchor::middle);
  out += turned_text(15, (top + bottom) / 2, -90, map.y_title);
  out += shade_bar(map, low, high, right + 10, top, bottom);
  return out + "</svg>\n";
}

std::string draw(const Grid& grid, double x, double y) {
  std::string out = open_plot(grid.title, x, y);
  double left = 20;
  for (const std::string& row : grid.rows) left = std::max(left, text_width(row) + 18);
  const double right = plot_width - 10, top = 58;
  const double bottom = plot_height - 34 - 18 * double(grid.kinds.size());
  const double width = (right - left) / double(std::max<size_t>(grid.columns.size(), 1));
  const double height = std::min(34.0, (bottom - top) / double(std::max<size_t>(grid.rows.size(), 1)));
  out += text((left + right) / 2, 36, grid.x_title, Anchor::middle);
  for (size_t c = 0; c < grid.columns.size(); ++c)
    out += text(left + (double(c) + 0.5) * width, 52, grid.columns[c], Anchor::middle);
  for (size_t r = 0; r < grid.rows.size(); ++r) {
    const double at = top + double(r) * height;
    out += text(left - 8, at + height / 2 + 4, grid.rows[r], Anchor::end);
    for (size_t c = 0; c < grid.cells[r].size(); ++c) {
      const Grid::Cell& cell = grid.cells[r][c];
      out += "<rect class=\"k" + std::to_string(cell.kind % 4) + "\" x=\"" +
             px(left + double(c) * width + 1) + "\" y=\"" + px(at + 1) + "\" width=\"" +
             px(width - 2) + "\" height=\"" + px(height - 2) + "\" rx=\"3\"/>\n";
      out += text(left + (double(c) + 0.5) * width, at + height / 2 + 4, cell.text, Anchor::middle,
                  "cell");
    }
  }
  double line = top + double(grid.rows.size()) * height + 22;
  for (size_t k = 0; k < grid.kinds.size(); ++k, line += 18) {
    out += "<rect class=\"k" + std::to_string(k % 4) + "\" x=\"12\" y=\"" + px(line - 10) +
           "\" width=\"14\" height=\"12\" rx=\"2\"/>\n";
    out += text(32, line, grid.kinds[k]);
  }
  return out + "</svg>\n";
}

}  // namespace sinkref::svg
