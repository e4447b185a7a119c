// Curves on linear or logarithmic axes.

#include <algorithm>

#include "page/svg.h"

namespace sinkref::svg {

namespace {

struct Frame {
  double left = 0, right = plot_width - 14, top = 30, bottom = plot_height - 46;
  Scale x, y;
};

/// The names of horizontal rules stand right of the frame, moved apart where they would touch.
struct RuleLabel {
  double y;
  std::string name;
};

std::vector<RuleLabel> rule_labels(const LineChart& chart, const Frame& frame) {
  std::vector<RuleLabel> labels;
  for (const Rule& rule : chart.rules)
    if (!rule.vertical && frame.y.shows(rule.at)) labels.push_back({frame.y(rule.at), rule.name});
  std::sort(labels.begin(), labels.end(),
            [](const RuleLabel& a, const RuleLabel& b) { return a.y < b.y; });
  constexpr double apart = 14;
  for (size_t i = 1; i < labels.size(); ++i)
    labels[i].y = std::max(labels[i].y, labels[i - 1].y + apart);
  // What was pushed below the frame pushes back up.
  double limit = frame.bottom;
  for (size_t i = labels.size(); i-- > 0; limit -= apart)
    labels[i].y = std::min(labels[i].y, limit);
  return labels;
}

/// A tick's number, or the name that stands in its place.
std::string x_text(const Axis& axis, double tick) {
  if (axis.names.empty()) return tick_text(tick);
  return axis.names.at(static_cast<size_t>(tick) - 1);
}

/// Whether names would touch in one line: every other stands lower then.
bool wide_names(const Axis& axis, double width) {
  return std::any_of(axis.names.begin(), axis.names.end(), [&](const std::string& name) {
    return text_width(name) + 4 > width / static_cast<double>(axis.names.size());
  });
}

std::string axes(const LineChart& chart, const Frame& frame) {
  std::string out;
  for (double tick : frame.y.ticks) {
    out += "<path class=\"grid\" d=\"M" + px(frame.left) + " " + px(frame.y(tick)) + "H" +
           px(frame.right) + "\"/>\n";
    out += text(frame.left - 6, frame.y(tick) + 4, tick_text(tick), Anchor::end);
  }
  // The last is always named: those before it make room.
  double free_from = 0;
  const double last = frame.x.ticks.empty() ? 0 : frame.x.ticks.back();
  const bool staggered = wide_names(chart.x, frame.right - frame.left);
  const auto half_of = [&](double tick) { return text_width(x_text(chart.x, tick)) / 2; };
  const auto centre_of = [&](double tick) {
    return std::min(frame.x(tick), plot_width - half_of(tick) - 1);
  };
  for (size_t i = 0; i < frame.x.ticks.size(); ++i) {
    const double tick = frame.x.ticks[i], half = half_of(tick), at = centre_of(tick);
    out += "<path class=\"axis\" d=\"M" + px(frame.x(tick)) + " " + px(frame.bottom) + "v4\"/>\n";
    if (!chart.x.names.empty()) {
      out += text(at, frame.bottom + (staggered && i % 2 == 1 ? 29 : 17), x_text(chart.x, tick), Anchor::middle);
      continue;
    }
    if (at - half < free_from || (tick != last && at + half + 6 > centre_of(last) - half_of(last)))
      continue;
    out += text(at, frame.bottom + 17, tick_text(tick), Anchor::middle);
    free_from = at + half + 6;
  }
  out += "<path class=\"axis\" d=\"M" + px(frame.left) + " " + px(frame.top) + "V" +
         px(frame.bottom) + "H" + px(frame.right) + "\"/>\n";
  out += text((frame.left + frame.right) / 2, plot_height - 10, chart.x.title, Anchor::middle);
  return out + turned_text(13, (frame.top + frame.bottom) / 2, -90, chart.y.title);
}

/// Of the points that share a column of pixels the first, the lowest, the highest and the last.
std::vector<std::pair<double, double>> thinned(const Series& series, const Frame& frame) {
  std::vector<std::pair<double, double>> all, kept;
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i)
    if (frame.x.shows(series.x[i]) && frame.y.shows(series.y[i]))
      all.push_back({frame.x(series.x[i]), frame.y(series.y[i])});
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin, low = begin, high = begin;
    for (; end < all.size() && static_cast<long>(all[end].first) == static_cast<long>(all[begin].first);
         ++end) {
      if (all[end].second < all[low].second) low = end;
      if (all[end].second > all[high].second) high = end;
    }
    size_t chosen[] = {begin, std::min(low, high), std::max(low, high), end - 1};
    for (size_t i = 0; i < 4; ++i)
      if (i == 0 || chosen[i] != chosen[i - 1]) kept.push_back(all[chosen[i]]);
    begin = end;
  }
  return kept;
}

using Points = std::vector<std::pair<double, double>>;

/// Markers of one series as one path: at every point of a short one, else now and then. `phase`, from
/// 0 to 1, keeps those of curves that lie on each other apart.
std::string markers(const Series& series, const Points& points, size_t shape, double phase) {
  constexpr size_t few = 12;
  constexpr double apart = 60;
  const bool all = series.mark == Series::Mark::dots || points.size() <= few;
  std::string path;
  double next = points.front().first + phase * apart;
  for (const auto& [x, y] : points) {
    if (!all && x < next) continue;
    path += marker(shape, x, y);
    while (next <= x) next += apart;
  }
  return "<path class=\"" + std::string(series.mark == Series::Mark::dashed ? "hollow" : "dot") + " c" +
         std::to_string(series.colour % 8) + "\" d=\"" + path + "\"/>\n";
}

std::string curve(const Series& series, const Frame& frame, size_t curves) {
  constexpr size_t many_points = 200, many_curves = 3;
  const Points points = thinned(series, frame);
  const bool crowded = curves > many_curves || (curves > 1 && points.size() > many_points);
  const std::string colour = std::string(crowded ? " thin" : "") + " c" + std::to_string(series.colour % 8);
  if (points.size() < 2 || series.mark == Series::Mark::dots) return "";
  std::string out = "<path class=\"line" + colour + (series.mark == Series::Mark::dashed ? " dashed" : "") +
        "\" d=\"";
  for (size_t i = 0; i < points.size(); ++i)
    out += (i == 0 ? "M" : "L") + px(points[i].first) + " " + px(points[i].second);
  return out + "\"><title>" + escaped(series.name) + "</title></path>\n";
}

/// What lies on top of all curves.
std::string marks(const LineChart& chart, const Frame& frame) {
  const auto of = [&](const Series& series, size_t shape, double phase) {
    const Points points = thinned(series, frame);
    return points.empty() ? std::string() : markers(series, points, shape, phase);
  };
  std::string out;
  const size_t curves = chart.series.size();
  for (size_t i = 0; i < curves; ++i)
    if (curves > 1 || chart.series[i].mark == Series::Mark::dots || chart.series[i].x.size() == 1)
      out += of(chart.series[i], i, (static_cast<double>(i) + 0.5) / static_cast<double>(curves));
  for (const Series& series : chart.marks) out += of(series, series.colour, 0);
  return out;
}

std::string rules(const LineChart& chart, const Frame& frame) {
  std::string out;
  for (const Rule& rule : chart.rules) {
    const Scale& scale = rule.vertical ? frame.x : frame.y;
    if (!scale.shows(rule.at)) continue;
    const std::string at = px(scale(rule.at));
    out += "<path class=\"rule\" d=\"M" +
           (rule.vertical ? at + " " + px(frame.top) + "V" + px(frame.bottom)
                          : px(frame.left) + " " + at + "H" + px(frame.right)) +
           "\"/>\n";
  }
  for (const RuleLabel& label : rule_labels(chart, frame))
    out += text(frame.right + 5, label.y + 4, label.name);
  // Names of vertical rules stand above the frame, left to right, where there is room.
  double free_from = frame.left;
  for (const Rule& rule : chart.rules) {
    if (!rule.vertical || rule.name.empty()) continue;
    const double half = text_width(rule.name) / 2;
    const double at = std::clamp(frame.x(rule.at), frame.left + half, plot_width - half);
    if (at - half < free_from) continue;
    out += text(at, frame.top - 4, rule.name, Anchor::middle);
    free_from = at + half + 6;
  }
  return out;
}

}  // namespace

std::string draw(const LineChart& chart, double x, double y) {
  std::string out = open_plot(chart.title, x, y);
  Frame frame;
  frame.top += legend(out, chart.series, 12, frame.top + 8, plot_width - 24);
  std::vector<double> xs, ys;
  for (const Series& series : chart.series) {
    xs.insert(xs.end(), series.x.begin(), series.x.end());
    ys.insert(ys.end(), series.y.begin(), series.y.end());
  }
  double names = 0;
  bool vertical = false;
  for (const Rule& rule : chart.rules) {
    (rule.vertical ? xs : ys).push_back(rule.at);
    vertical |= rule.vertical && !rule.name.empty();
    if (!rule.vertical) names = std::max(names, text_width(rule.name));
  }
  if (names > 0) frame.right -= names;
  if (vertical) frame.top += 12;
  if (wide_names(chart.x, frame.right - 80)) frame.bottom -= 12;
  frame.y = scale_for(ys, chart.y.logarithmic, frame.bottom, frame.top);
  double ticks = 0;
  for (double tick : frame.y.ticks) ticks = std::max(ticks, text_width(tick_text(tick)));
  frame.left = 34 + ticks;
  frame.x = scale_for(xs, chart.x.logarithmic, frame.left, frame.right);
  if (!chart.x.names.empty()) {
    const double count = static_cast<double>(chart.x.names.size());
    frame.x = Scale{false, 0.5, count + 0.5, frame.left, frame.right, {}};
    for (double place = 1; place <= count; ++place) frame.x.ticks.push_back(place);
  }
  out += axes(chart, frame) + rules(chart, frame);
  for (const Series& series : chart.series) out += curve(series, frame, chart.series.size());
  out += marks(chart, frame);
  return out + "</svg>\n";
}

}  // namespace sinkref::svg
