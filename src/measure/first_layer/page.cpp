#include <numeric>

#include "measure/first_layer/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

constexpr size_t drawn_detectors = 4;

double total(const std::vector<double>& parts) {
  return std::accumulate(parts.begin(), parts.end(), 0.0);
}

Figure histograms(const FirstLayerResult& found) {
  Figure figure{"first_layer_histograms", "What tells position 0 apart",
                "Gate pre-activation of the strongest detector neurons of layer 0 over three-word "
                "texts, by position: counts of texts. Position 0 sees only itself.",
                "", {}};
  for (const Detector& d : found.detectors) {
    if (figure.plots.size() == drawn_detectors) break;
    LineChart chart{"Neuron " + std::to_string(d.neuron), {"gate pre-activation", false},
                    {"texts", false}, {}, {}};
    for (size_t position = 0; position < 3; ++position) {
      Series series{"position " + std::to_string(position), {}, {}, position, Series::Mark::line};
      for (size_t bin = 0; bin < d.histogram.counts[position].size(); ++bin) {
        series.x.push_back(d.histogram.first_edge + (double(bin) + 0.5) * d.histogram.bin_width);
        series.y.push_back(static_cast<double>(d.histogram.counts[position][bin]));
      }
      chart.series.push_back(std::move(series));
    }
    figure.plots.push_back(std::move(chart));
  }
  return figure;
}

LineChart by_head(const std::string& title, const std::string& y, const std::vector<Series>& series) {
  return {title, {"head", false}, {y, false}, series, {}};
}

Figure heads_figure(const FirstLayerResult& found) {
  const size_t heads = found.heads.size();
  const auto dots = [&](const std::string& name, size_t colour, const auto& value) {
    Series series{name, counting(heads), {}, colour, Series::Mark::dots};
    for (size_t h = 0; h < heads; ++h) series.y.push_back(value(h));
    return series;
  };
  Figure figure{"first_layer_heads", "What each head of layer 0 does with another token",
                "Three panels. First: mean attention to other tokens in three-word texts, which at position 0 "
                "is none. Second: when a token that saw only itself sees one other token, how much of the "
                "change (mean square, over all pairs) is the same whatever is seen (any), depends on "
                "the reader, on the token seen (which), or on the pair. Third: what each head adds to the "
                "strongest detector's gate.",
                "", {}};
  figure.plots.push_back(by_head(
      "Attention to other tokens", "share of attention",
      {dots("position 1", 1, [&](size_t h) { return found.heads[h].other[1]; }),
       dots("position 2", 2, [&](size_t h) { return found.heads[h].other[2]; })}));
  const auto share = [&](double Shares::* part) {
    return [&found, part](size_t h) { return found.detection.heads[h].shares.*part; };
  };
  figure.plots.push_back(by_head("What the change depends on", "share of the change",
                                 {dots("any", 0, share(&Shares::mark)),
                                  dots("reader", 7, share(&Shares::reader)),
                                  dots("which", 1, share(&Shares::other)),
                                  dots("pair", 3, share(&Shares::both))}));
  const auto part = [&](size_t position, bool other) {
    return [&found, position, other](size_t h) {
      const PreAccount& account = found.detectors[0].account[position];
      return (other ? account.other : account.same)[h];
    };
  };
  figure.plots.push_back(
      by_head("Parts of the strongest detector's gate", "contribution",
              {dots("position 0, itself", 0, part(0, false)),
               dots("position 1, itself", 1, part(1, false)),
               dots("position 1, the other token", 4, part(1, true))}));
  return figure;
}

Figure convergence_figure(const FirstLayerResult& found) {
  Figure figure{"convergence", "A run converges to the lone token (theorem 4.1)",
                "Norm of the difference between prefix + n repeats and the lone token, at layer 0's "
                "attention output and after the layer. Bound: from the measured attention to the "
                "prefix. Rate: 1/n odds from the first repeat's attention.",
                "", {}};
  LineChart prefix{"Attention still on the prefix", {"repeats", true}, {"share of attention", true}, {}, {}};
  for (const Convergence& run : found.runs) {
    const std::vector<double> n = counting(run.attention_distance.size(), 1);
    LineChart chart{"\"" + run.word + "\"", {"repeats", true}, {"distance to the lone token", true}, {}, {}};
    chart.series = {{"attention output", n, run.attention_distance, 0, Series::Mark::line},
                    {"bound", n, run.bound, 1, Series::Mark::dashed},
                    {"rate 1/n", n, run.rate, 2, Series::Mark::dashed},
                    {"after the layer", n, run.layer_distance, 3, Series::Mark::line}};
    figure.plots.push_back(std::move(chart));
    prefix.series.push_back({run.word, n, run.other_attention, prefix.series.size(), Series::Mark::line});
  }
  if (!found.runs.empty()) figure.plots.push_back(std::move(prefix));
  return figure;
}

Table claims_table(const FirstLayerResult& found) {
  Table table{"The paper's account, statement by statement: first what was tried by changing something",
              {"statement", "kind", "measured", "expected", "", "control"}, {}};
  for (const Claim& c : found.claims)
    table.rows.push_back({c.statement, c.causal ? "causal" : "observed", plain(c.measured),
                          (c.at_least ? "at least " : "at most ") + plain(c.threshold),
                          c.holds() ? "holds" : "differs",
                          c.control.empty() ? "–" : c.control + ": " + plain(c.control_measured)});
  return table;
}

/// A statement, counted once however many words it is tried on.
struct Statement {
  std::string text;
  size_t tried = 0, held = 0;
  std::string measured;  ///< of the last that was tried
};

std::vector<Statement> statements(const FirstLayerResult& found, bool causal) {
  std::vector<Statement> all;
  std::vector<std::string> about;
  for (const Claim& c : found.claims) {
    if (c.causal != causal) continue;
    if (about.empty() || about.back() != c.about) {
      about.push_back(c.about);
      std::string text = c.statement;
      const std::string of = " of \"" + c.word + "\"";
      if (const size_t at = text.find(of); !c.word.empty() && at != text.npos) text.erase(at, of.size());
      all.push_back({text, 0, 0, {}});
    }
    ++all.back().tried;
    all.back().held += c.holds();
    all.back().measured = plain(c.measured) + ", expected at " + (c.at_least ? "least " : "most ") +
                          plain(c.threshold);
  }
  return all;
}

/// "1 of 3 causal statements holds; not so: …"
std::string statements_text(const std::vector<Statement>& all, const std::string& kind) {
  size_t held = 0;
  std::vector<std::string> partly, not_so;
  for (const Statement& s : all) {
    if (s.held == s.tried) ++held;
    else if (s.held > 0)
      partly.push_back("\"" + s.text + "\" (" + std::to_string(s.held) + " of " + std::to_string(s.tried) + " words)");
    else
      not_so.push_back("\"" + s.text + "\" (" +
                       (s.tried == 1 ? s.measured : "0 of " + std::to_string(s.tried) + " words") + ")");
  }
  std::string text = std::to_string(held) + " of " + std::to_string(all.size()) + " " + kind +
                     (all.size() == 1 ? " statement" : " statements") + (held == 1 ? " holds" : " hold");
  if (!partly.empty()) text += "; in part: " + joined_text(partly);
  if (!not_so.empty()) text += "; not so: " + joined_text(not_so);
  return text + ".";
}

Table accounts_table(const FirstLayerResult& found) {
  Table table{"Detectors: the gate as a sum of parts (means over the texts)",
              {"neuron", "told apart", "at 0", "= embedding", "+ itself", "at 1", "= embedding",
               "+ itself", "+ other token"}, {}};
  for (const Detector& d : found.detectors)
    table.rows.push_back({std::to_string(d.neuron), percent(d.separated), plain(d.mean[0]),
                          plain(d.account[0].embed), plain(total(d.account[0].same)),
                          plain(d.mean[1]), plain(d.account[1].embed),
                          plain(total(d.account[1].same)), plain(total(d.account[1].other))});
  return table;
}

Table blinding_table(const FirstLayerResult& found) {
  Table table{"Ordinary text that sees only itself in some layers: does it look like a first token?",
              {"blinded", "sink layer", "median norm", "tokens that fire"}, {}};
  for (const Blinding& b : found.blinding)
    for (const Blinding::Sink& sink : b.sinks) {
      std::string what = b.layers.empty() ? "nothing" : "layer " + std::to_string(b.layers.front());
      if (b.layers.size() > 1)
        what = "layers " + std::to_string(b.layers.front()) + " to " + std::to_string(b.layers.back());
      if (b.head) what += ", head " + std::to_string(*b.head);
      table.rows.push_back({what, std::to_string(sink.layer), plain(sink.median_norm), percent(sink.fires)});
    }
  return table;
}

Section first_layer_section(const PageContext& context) {
  const FirstLayerResult& found = context.results.get<FirstLayerResult>();
  Section section{"first-layer",
                  "The first attention layer",
                  "Why is a token that sees only itself recognised? The paper's account: layer 0's "
                  "attention marks every token that can see a different one; the first token, and a "
                  "token deep inside a run of itself, lack the mark.",
                  {histograms(found), heads_figure(found)},
                  {claims_table(found)}};
  if (!found.blinding.empty()) section.tables.push_back(blinding_table(found));
  section.tables.push_back(accounts_table(found));
  if (!found.runs.empty()) section.figures.push_back(convergence_figure(found));
  for (Figure& figure : section.figures)
    figure.command = context.study_command("first-layer");
  return section;
}

Finding first_layer_finding(const PageContext& context) {
  const FirstLayerResult& found = context.results.get<FirstLayerResult>();
  const std::vector<Statement> causal = statements(found, true);
  std::vector<std::string> controls;
  for (const Claim& c : found.claims)
    if (!c.control.empty()) controls.push_back(c.control + " " + plain(c.control_measured));
  return {"Does the first attention layer explain why?",
          (causal.empty() ? "Without a sink no causal statement can be tried." : statements_text(causal, "causal")) +
              " " + statements_text(statements(found, false), "observed"),
          "Each statement of the paper's account is counted once. Exact sums of parts (worst error " +
              plain(found.closure.worst_of_bound) + " of its bound), three-word texts, runs of one word " +
              after_text(context.usual().name) + ".",
          "first-layer", controls.empty() ? "" : "of the causal ones in turn: " + listed_text(controls) + "."};
}

}  // namespace

void first_layer_page(const PageContext& context, Page& page) {
  page.findings.push_back(first_layer_finding(context));
  page.sections.push_back(first_layer_section(context));
}

}  // namespace sinkref
