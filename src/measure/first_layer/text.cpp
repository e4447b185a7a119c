#include <algorithm>
#include <cstdio>

#include "measure/first_layer/panel.h"
#include "page/words.h"

namespace sinkref {

namespace {

std::string layers_text(const Blinding& b) {
  if (b.layers.empty()) return "nothing";
  const std::string first = std::to_string(b.layers.front());
  std::string text = b.layers.size() == 1 ? "layer " + first
                                          : "layers " + first + "-" + std::to_string(b.layers.back());
  if (b.head) text += ", head " + std::to_string(*b.head);
  return text;
}

void print_detectors(const FirstLayerResult& r) {
  std::puts("Detectors: neurons of layer 0 whose gate tells position 0 (mean over the texts)\n"
            "  neuron  position 0        1        2  told apart |  at 0: scale    embed  attention |"
            "  at 1: scale    embed  own token  other token");
  const auto total = [](const std::vector<double>& parts) {
    double sum = 0;
    for (double part : parts) sum += part;
    return sum;
  };
  for (const Detector& d : r.detectors)
    std::printf("  %6zu  %10.3f %8.3f %8.3f  %8.1f %% |  %11.3f %8.3f %10.3f |  %11.3f %8.3f %10.3f %12.3f\n",
                d.neuron, d.mean[0], d.mean[1], d.mean[2], 100 * d.separated, d.account[0].scale,
                d.account[0].embed, total(d.account[0].same), d.account[1].scale,
                d.account[1].embed, total(d.account[1].same), total(d.account[1].other));
  std::printf("  %zu sums closed; worst error %.2g of its bound, %.2g of the terms' magnitude\n",
              r.closure.sums, r.closure.worst_of_bound, r.closure.worst_relative);
}

void print_heads(const FirstLayerResult& r) {
  std::puts("\nHeads of layer 0: attention to other tokens, and what seeing one changes in their output\n"
            "  head  at 1  at 2  change  of it: any token    reader     which      both"
            "   in the strongest detector (of it: any token)");
  const auto line = [](const char* name, double at1, double at2, const OtherTokenShift& s,
                       const OtherTokenShift& d) {
    std::printf("  %4s  %4.2f  %4.2f  %6.3f  %15.1f %% %7.1f %% %7.1f %% %7.1f %%   %+.4f (%.1f %%)\n",
                name, at1, at2, s.size, 100 * s.shares.mark, 100 * s.shares.reader,
                100 * s.shares.other, 100 * s.shares.both, d.mark, 100 * d.shares.mark);
  };
  double at1 = 0, at2 = 0;
  for (size_t h = 0; h < r.heads.size(); ++h) {
    line(std::to_string(h).c_str(), r.heads[h].other[1], r.heads[h].other[2],
         r.detection.heads[h], r.detection.detectors.at(0)[h]);
    at1 += r.heads[h].other[1] / double(r.heads.size());
    at2 += r.heads[h].other[2] / double(r.heads.size());
  }
  line("all", at1, at2, r.detection.attention, r.detection.detector_totals.at(0));
}

void print_runs(const FirstLayerResult& r) {
  if (r.runs.empty()) return;
  std::puts("\nPrefix + n repeats against the lone token, layer 0 (norms of differences; theorem 4.1: 1/n)\n"
            "  word            n   attention's output   bound    rate   after the layer   on the prefix");
  for (const Convergence& run : r.runs) {
    for (const Convergence::Predicted& p : run.predicted) {
      const size_t n = p.repeat;
      // Every second of the chosen ones is enough on a screen.
      if (n != run.bound.size() && (n & (n - 1)) != 0) continue;
      std::printf("  %-10s %6zu   %18.5f  %6.3f  %6.3f   %15.5f   %13.5f\n", run.word.c_str(), n,
                  run.attention_distance[n - 1], run.bound[n - 1], run.rate[n - 1],
                  run.layer_distance[n - 1], run.other_attention[n - 1]);
    }
    std::printf("  %-10s log-log slope: distance %.3f, attention to the prefix %.3f, theorem %.3f\n",
                run.word.c_str(), run.slope_distance, run.slope_attention, run.slope_rate);
  }
}

void print_causal(const FirstLayerResult& r, const std::vector<SinkLayer>& sinks) {
  if (sinks.empty()) {
    std::puts("\nNo sink was found: there is nothing to check causally.");
    return;
  }
  std::puts("\nOrdinary text that sees only itself in the attention of … (median norm; tokens that fire)");
  std::printf("  %-22s", "blinded");
  for (const SinkLayer& sink : sinks) std::printf("  sink of layer %-8zu", sink.layer);
  std::puts("");
  for (const Blinding& b : r.blinding) {
    std::printf("  %-22s", layers_text(b).c_str());
    for (const SinkLayer& sink : sinks) {
      const auto at = std::find_if(b.sinks.begin(), b.sinks.end(), [&](const Blinding::Sink& s) {
        return s.layer == sink.layer;
      });
      if (at == b.sinks.end()) std::printf("  %22s", "");
      else std::printf("  %10.1f  %5.1f %%  ", at->median_norm, 100 * at->fires);
    }
    std::puts("");
  }
  const auto shares = [](const char* what, const std::vector<double>& all) {
    std::printf("  %-22s", what);
    for (double share : all) std::printf("  %10s  %5.1f %%  ", "", 100 * share);
    std::puts("");
  };
  shares("lone tokens", r.fires_lone);
  shares("… given the mark", r.fires_marked);
  for (const LayerDetectors& l : r.by_layer) {
    std::printf("  first token without the %zu detectors of layer %zu (strongest %zu, told apart %.1f %%):",
                l.neurons.size(), l.layer, l.neurons[0], 100 * l.separated);
    for (double norm : l.norm_ablated) std::printf("  %.1f", norm);
    std::puts("");
  }
}

void print_claims(const FirstLayerResult& r) {
  std::puts("\nThe paper's account on this model, first what was tried by changing something");
  for (const Claim& c : r.claims)
    std::printf("  %-7s %s: %.3f, expected at %s %.2f%s\n", c.holds() ? "holds" : "DIFFERS",
                c.statement.c_str(), c.measured, c.at_least ? "least" : "most", c.threshold,
                c.control.empty() ? "" : (" (" + c.control + ": " + plain(c.control_measured) + ")").c_str());
}

}  // namespace

void first_layer_text(const Experiment&, const Results& results) {
  const FirstLayerResult& found = results.get<FirstLayerResult>();
  print_detectors(found);
  print_heads(found);
  print_runs(found);
  print_causal(found, results.sinks);
  print_claims(found);
}

}  // namespace sinkref
