// first-layer: why a position that sees only itself is recognised, and the cluster attack.

#include "cli/first_layer.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/inputs.h"
#include "sinkref/error.h"

namespace sinkref::cli {

namespace {

// Common words, for the three-word texts.
constexpr const char* common_words =
    "the of and to in is that for with on as are this by from one all have new more an was we "
    "will can us about if my has search free other information time they site may what which "
    "their news out use any there see only so his when here who web also now help get first been "
    "would how were services some these its like service than price find date back top people "
    "list name just over state year day into email two health next used go work last most music "
    "data make them should product system post city policy number such please available copy "
    "support message after best software good video well where info rights public books high "
    "school through each links she review years order very privacy book items company read group "
    "need many user said does set under general research university mail full map reviews program "
    "life know games way days management part could great united hotel real item international "
    "center must store travel comments made development report off member details line terms "
    "before did send right type because local those using results office education national car "
    "design take posted internet address community within states area want phone shipping "
    "reserved subject between forum family long based code show even black check special prices "
    "website index being women much sign file link open today technology south case project same "
    "pages version section own found sports house related security both county american photo "
    "game members power while care network down computer systems three total place end following "
    "download him without per access think north resources current posts big media law control "
    "water history pictures size art personal since including guide shop directory board location "
    "change white text small rating rate government children during return students shopping "
    "account times sites level digital profile previous form events love old john main call hours";

std::unique_ptr<Tokenizer> tokenizer_or_none(const Options& options, const Model& model) {
  if (options.tokens || options.tokens_file) return nullptr;  // the user's ids are the input
  return Tokenizer::open(model.checkpoint());
}

/// Ids that may stand in a text: no BOS, no eos, no control or byte tokens ("<s>", "<0x0A>").
std::vector<int> ordinary_ids(const Model& model, const Tokenizer* tokenizer) {
  const ModelConfig& c = model.config();
  std::vector<int> ids;
  const size_t known = tokenizer ? std::min(c.vocab_size, tokenizer->vocab_size()) : c.vocab_size;
  for (size_t i = 0; i < known; ++i) {
    const int id = static_cast<int>(i);
    if (id == c.bos_id || std::find(c.eos_ids.begin(), c.eos_ids.end(), id) != c.eos_ids.end())
      continue;
    if (tokenizer) {
      const std::string piece = tokenizer->piece(id);
      if (piece.empty() || (piece.size() > 2 && piece.front() == '<' && piece.back() == '>')) continue;
    }
    ids.push_back(id);
  }
  return ids;
}

std::string layers_text(const Blinding& b) {
  if (b.layers.empty()) return "nothing";
  const std::string first = std::to_string(b.layers.front());
  std::string text = b.layers.size() == 1 ? "layer " + first
                                          : "layers " + first + "-" + std::to_string(b.layers.back());
  if (b.head) text += ", head " + std::to_string(*b.head);
  return text;
}

void print_detectors(const FirstLayerReport& r) {
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

void print_heads(const FirstLayerReport& r) {
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

void print_runs(const FirstLayerReport& r) {
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

void print_causal(const FirstLayerReport& r, const std::vector<SinkLayer>& sinks) {
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

void print_claims(const FirstLayerReport& r) {
  std::puts("\nThe paper's account on this model");
  for (const Claim& c : r.claims)
    std::printf("  %-7s %s: %.3f, expected at %s %.2f\n", c.holds() ? "holds" : "DIFFERS",
                c.statement.c_str(), c.measured, c.at_least ? "least" : "most", c.threshold);
}

}  // namespace

FirstLayerInputs first_layer_inputs(const Options& options, const Model& model,
                                    const SinkInputs& inputs, const std::vector<SinkLayer>& sinks) {
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_or_none(options, model);
  std::vector<int> ordinary;
  if (tokenizer) {
    std::string_view words = common_words;
    while (!words.empty()) {
      const size_t end = std::min(words.find(' '), words.size());
      // As it stands inside a text; of a word of several tokens the last.
      const std::vector<int> ids =
          tokenizer->encode("the " + std::string(words.substr(0, end)), BosPolicy::off);
      if (!ids.empty()) ordinary.push_back(ids.back());
      words.remove_prefix(std::min(end + 1, words.size()));
    }
  } else {
    ordinary = ordinary_ids(model, nullptr);
  }
  return sinkref::first_layer_inputs(ordinary, inputs, sinks);
}

ClusterInputs cluster_inputs(const Options& options, const Model& model, const SinkInputs& inputs,
                             const std::vector<SinkLayer>& sinks) {
  ClusterInputs chosen;
  if (!inputs.words.empty()) chosen.prefix = inputs.words[0].prefix;
  chosen.tokens = ordinary_ids(model, tokenizer_or_none(options, model).get());
  chosen.length = inputs.repeats;
  chosen.sinks = {first_sink(sinks)};
  chosen.patch = neurons_of(sinks);
  return chosen;
}

void print_first_layer(const FirstLayerReport& report, const std::vector<SinkLayer>& sinks) {
  print_detectors(report);
  print_heads(report);
  print_runs(report);
  print_causal(report, sinks);
  print_claims(report);
}

void print_clusters(const ClusterReport& report, const Tokenizer* tokenizer) {
  std::printf("\nCluster attack: runs of %zu tokens that layer 0 can hardly tell apart; a run succeeds if "
              "%g %%\nof its tokens fire the sink (of them: mean share)\n"
              "  sink  tokens     different  succeeded  of them  largest norm  with the patch\n",
              report.length, 100 * attack_success);
  for (const AttackRuns& a : report.attacks)
    std::printf("  %4zu  %-10s %9zu  %4zu/%-4zu  %5.1f %%  %12.1f  %4zu/%-4zu  %5.1f %%  %.1f\n", a.layer,
                a.kind.c_str(), a.different, a.fired, a.runs, 100 * a.share, a.largest,
                a.fired_patched, a.runs, 100 * a.share_patched, a.largest_patched);
  std::puts("  clusters (centre first; distance of the last as a fraction of the median between tokens)");
  for (const Cluster& c : report.clusters) {
    std::printf("  %5.2f ", c.distance.back());
    for (size_t i = 0; i < std::min<size_t>(c.members.size(), 6); ++i)
      std::printf(" %s", tokenizer ? quoted(tokenizer->piece(c.members[i])).c_str()
                                   : std::to_string(c.members[i]).c_str());
    std::printf(" … (%zu)\n", c.members.size());
  }
}

int first_layer(const Options& options) {
  const Model model = open_model(options);
  const SinkInputs inputs = sink_inputs(options, model, options.repeats);
  const RunOptions run = run_options(options);
  say("sinks, for the causal checks");
  const std::vector<SinkLayer> sinks =
      find_sinks(model, run, inputs, measure_norms(model, run, inputs));
  const FirstLayerInputs chosen = first_layer_inputs(options, model, inputs, sinks);
  const FirstLayerReport found = options.precision == "fp64"
                                     ? analyse_first_layer<double>(model, run, chosen, say)
                                     : analyse_first_layer<float>(model, run, chosen, say);
  std::optional<ClusterReport> clusters;
  if (!sinks.empty())
    clusters = attack_with_clusters(model, run, cluster_inputs(options, model, inputs, sinks), say);
  if (options.json) {
    nlohmann::ordered_json j = {
        {"first_layer", to_json(found)}, {"cluster_attack", nullptr}, {"inputs", to_json(chosen)}};
    if (clusters) j["cluster_attack"] = to_json(*clusters);
    std::cout << j.dump(1) << '\n';
  } else {
    print_first_layer(found, sinks);
    if (clusters) print_clusters(*clusters, tokenizer_or_none(options, model).get());
  }
  return found.closure.worst_of_bound <= 1 ? 0 : 1;
}

}  // namespace sinkref::cli
