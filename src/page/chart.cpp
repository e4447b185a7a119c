#include "page/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "page/svg.h"

namespace sinkref {

namespace {

// Distinguishable with the common colour deficiencies, and of similar contrast on their ground.
constexpr const char* light_lines[8] = {"#1f6fb4", "#b8520a", "#17805a", "#7a4bb0",
                                        "#bd2c55", "#0b7f90", "#7f6114", "#5d6672"};
constexpr const char* dark_lines[8] = {"#6cb2f2", "#f3a25f", "#5fd09a", "#bd99f2",
                                       "#f3849f", "#5fcbd9", "#d9ba5e", "#a9b2be"};
constexpr const char* light_shades[12] = {"#f3f6fa", "#dfe8f2", "#c8d9ea", "#afc8e1",
                                          "#94b6d8", "#78a2cd", "#5d8ec1", "#4479b2",
                                          "#30649f", "#214f88", "#163b6d", "#0d284f"};
constexpr const char* dark_shades[12] = {"#1b2430", "#1f3044", "#233d5a", "#274b71",
                                         "#2c5a88", "#346a9f", "#417cb4", "#558fc6",
                                         "#70a4d5", "#90bae2", "#b4d0ed", "#dbe9f8"};
// From negative to positive, the two in the middle next to zero.
constexpr const char* light_diverging[12] = {"#123f6d", "#245c94", "#4580b5", "#7ba6cd", "#b3cde3",
                                             "#e3ebf2", "#f6eadf", "#f0cfae", "#e3a775", "#cd7b43",
                                             "#a9561f", "#7a380c"};
constexpr const char* dark_diverging[12] = {"#b9dbf7", "#86bbe8", "#5596cf", "#3874ac", "#2b557f",
                                            "#233448", "#40322a", "#6e4a2d", "#9c6534", "#c98544",
                                            "#e6ab70", "#f8d6b0"};
constexpr const char* light_kinds[4] = {"#bfe3cf", "#f6dfae", "#f3c1c9", "#dfe3e8"};
constexpr const char* dark_kinds[4] = {"#1f5a3d", "#6a5318", "#74303f", "#3a424d"};

size_t columns_of(const Figure& figure) { return figure.plots.size() == 1 ? 1 : 2; }

std::string quoted_csv(const std::string& text) {
  std::string out = "\"";
  for (char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

/// Columns x and one per series, if they have the same x; otherwise a block for each.
std::string points_csv(const LineChart& chart) {
  const std::vector<Series>& all = chart.series;
  const bool same = std::all_of(all.begin(), all.end(), [&](const Series& s) {
    return s.x == all[0].x && s.y.size() == s.x.size();
  });
  std::string out;
  const auto block = [&](size_t begin, size_t end) {
    out += quoted_csv(chart.x.title);
    for (size_t s = begin; s < end; ++s) out += "," + quoted_csv(all[s].name);
    out += "\n";
    for (size_t i = 0; i < std::min(all[begin].x.size(), all[begin].y.size()); ++i) {
      out += chart.x.names.empty() ? digits(all[begin].x[i]) : quoted_csv(chart.x.names.at(i));
      for (size_t s = begin; s < end; ++s) out += "," + digits(all[s].y[i]);
      out += "\n";
    }
  };
  if (same && !all.empty()) block(0, all.size());
  else for (size_t s = 0; s < all.size(); ++s) block(s, s + 1);
  return out;
}

std::string points_csv(const HeatMap& map) {
  std::string out;
  if (!map.x.empty()) {
    out += quoted_csv(map.y_title + " \\ " + map.x_title);
    for (double x : map.x) out += "," + digits(x);
    out += "\n";
  }
  for (size_t r = 0; r < map.rows.size(); ++r) {
    out += map.y.empty() ? std::to_string(r) : digits(map.y[r]);
    for (double value : map.rows[r]) out += "," + digits(value);
    out += "\n";
  }
  return out;
}

std::string points_csv(const Grid& grid) {
  std::string out = "\"\"";
  for (const std::string& column : grid.columns) out += "," + quoted_csv(column);
  out += "\n";
  for (size_t r = 0; r < grid.cells.size(); ++r) {
    out += quoted_csv(grid.rows[r]);
    for (const Grid::Cell& cell : grid.cells[r])
      out += "," + quoted_csv(cell.text + " (" + grid.kinds.at(cell.kind) + ")");
    out += "\n";
  }
  return out;
}

}  // namespace

void share_scale(Figure& figure) {
  double low = INFINITY, high = -INFINITY;
  for (const Plot& plot : figure.plots)
    if (const HeatMap* map = std::get_if<HeatMap>(&plot))
      for (const std::vector<double>& row : map->rows)
        for (double value : row)
          if (std::isfinite(value)) {
            low = std::min(low, map->is_signed ? -std::fabs(value) : value);
            high = std::max(high, map->is_signed ? std::fabs(value) : value);
          }
  if (!(low < high)) return;
  for (Plot& plot : figure.plots)
    if (HeatMap* map = std::get_if<HeatMap>(&plot)) map->range = {low, high};
}

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 && c != '\n' ? '?' : c;
    }
  }
  return out;
}

std::string plot_svg(const Plot& plot, double x, double y) {
  return std::visit([&](const auto& p) { return svg::draw(p, x, y); }, plot);
}

std::string figure_svg(const Figure& figure) {
  const size_t columns = columns_of(figure);
  const size_t rows = (figure.plots.size() + columns - 1) / columns;
  const double width = double(columns) * plot_width, height = double(rows) * plot_height;
  std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + svg::px(width) +
                    "\" height=\"" + svg::px(height) + "\" viewBox=\"0 0 " + svg::px(width) + " " +
                    svg::px(height) + "\">\n<title>" + escaped(figure.title) + "</title>\n<desc>" +
                    escaped(figure.caption) + "</desc>\n<style>" + chart_style(false) +
                    "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  for (size_t i = 0; i < figure.plots.size(); ++i)
    out += plot_svg(figure.plots[i], double(i % columns) * plot_width,
                    double(i / columns) * plot_height);
  return out + "</svg>\n";
}

std::string figure_csv(const Figure& figure) {
  std::string out;
  for (const Plot& plot : figure.plots)
    out += std::visit([](const auto& p) { return quoted_csv(p.title) + "\n" + points_csv(p) + "\n"; },
                      plot);
  return out;
}

std::string chart_style(bool dark) {
  const auto rule = [](const std::string& selector, const std::string& body) {
    return "." + selector + "{" + body + "}\n";
  };
  const std::string ink = dark ? "#e6e9ee" : "#1d232b", faint = dark ? "#39424e" : "#e1e5ea";
  const std::string soft = dark ? "#b3bcc8" : "#4a5460";
  std::string css =
      rule("label", "font:12px system-ui,sans-serif;fill:" + soft) +
      rule("cell", "font:12px system-ui,sans-serif;fill:" + ink) +
      rule("heading", "font:600 13px system-ui,sans-serif;fill:" + ink) +
      rule("grid", "fill:none;stroke:" + faint) + rule("axis", "fill:none;stroke:" + soft) +
      rule("rule", "fill:none;stroke:" + soft + ";stroke-dasharray:1 3;stroke-width:1.4") +
      rule("line", "fill:none;stroke-width:1.8;stroke-linejoin:round") +
      rule("thin", "stroke-width:1.2;stroke-opacity:.8") +
      rule("dot", "stroke-width:1;paint-order:stroke;stroke:" + std::string(dark ? "#1a2027" : "#f6f7f9")) +
      rule("dashed", "stroke-dasharray:6 4") +
      rule("hollow", "stroke-width:1.4;fill:" + std::string(dark ? "#1a2027" : "#f6f7f9"));
  for (size_t i = 0; i < 8; ++i) {
    const std::string colour = dark ? dark_lines[i] : light_lines[i], c = "c" + std::to_string(i);
    css += rule("line." + c, "stroke:" + colour) + rule("dot." + c, "fill:" + colour) +
           rule("hollow." + c, "stroke:" + colour);
  }
  for (size_t i = 0; i < 12; ++i)
    css += rule("h" + std::to_string(i), std::string("fill:") + (dark ? dark_shades : light_shades)[i]);
  for (size_t i = 0; i < 12; ++i)
    css += rule("d" + std::to_string(i), std::string("fill:") + (dark ? dark_diverging : light_diverging)[i]);
  for (size_t i = 0; i < 4; ++i)
    css += rule("k" + std::to_string(i), std::string("fill:") + (dark ? dark_kinds : light_kinds)[i]);
  return css;
}

}  // namespace sinkref
