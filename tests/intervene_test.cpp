// Interventions as data: what the grammar says is what hooks do, and --ablate and --patch are shorthands.

#include <catch2/catch.hpp>
#include <cstring>

#include "sinkref/error.h"
#include "sinkref/forward.h"
#include "sinkref/interventions.h"

using namespace sinkref;

namespace {

const std::string outputs = SINKREF_SOURCE_DIR "/reference_outputs/";
const std::vector<std::vector<int>> batch = {{1, 5, 9, 7, 7, 7, 100, 3}, {4}, {2, 30, 31, 8, 8}};

/// Values of one hook, every row of every step.
std::vector<float> values(const Model& model, Hook hook, Hooks<float>& hooks,
                          const std::string& kernel = "auto") {
  std::vector<float> all;
  hooks.add(hook, [&](const Activation<float>& a) {
    for (size_t r = 0; r < a.rows.size(); ++r) all.insert(all.end(), a.row(r), a.row(r) + a.width);
  });
  RunOptions options;
  options.kernel = kernel;
  run(model, options, batch, hooks);
  return all;
}

std::vector<float> with(const Model& model, const std::string& text, const std::string& kernel = "auto",
                        Hook hook = {HookPoint::Logits, 0}) {
  Hooks<float> hooks;
  std::vector<size_t> lengths;
  for (const std::vector<int>& tokens : batch) lengths.push_back(tokens.size());
  add_interventions(parse_interventions(text, "--intervene", model.config()), lengths, hooks);
  return values(model, hook, hooks, kernel);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return !a.empty() && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("interventions: --ablate and --patch are shorthands", "[intervene]") {
  const Model model = Model::open(outputs + "tiny_llama1");
  const std::vector<Neurons> neurons = {{1, {17, 3}}};
  Hooks<float> none, ablated, patched;
  add_ablation(neurons, ablated);
  add_patch(neurons, patched);
  const auto plain = values(model, {}, none), zero = values(model, {}, ablated), pinned = values(model, {}, patched);
  CHECK(same_bits(with(model, "blocks.1.mlp.hook_post#17,3=zero"), zero));
  CHECK(same_bits(with(model, "blocks.1.mlp.hook_pre_linear#17,3=pin:1"), pinned));
  CHECK_FALSE(same_bits(plain, zero));
  CHECK_FALSE(same_bits(plain, pinned));
}

TEST_CASE("interventions: no kernel changes a bit", "[intervene]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  for (const std::string text : {"blocks.*.attn.hook_pattern@-2:#1=zero", "blocks.0.hook_mlp_out@1:3,-1=pin:1",
                                 "blocks.2.attn.hook_z#0,3=zero;hook_embed@-1=zero"}) {
    const auto whole = with(model, text);
    for (const std::string& kernel : available_kernels()) {
      INFO(text << " " << kernel);
      CHECK(same_bits(with(model, text, kernel), whole));
    }
    Hooks<float> none;
    CHECK_FALSE(same_bits(values(model, {HookPoint::Logits, 0}, none), whole));
  }
}

TEST_CASE("interventions: positions count from each prompt's own end", "[intervene]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const Hook embed{HookPoint::Embed, 0};
  const auto rows = with(model, "hook_embed@-1,1:3=zero", "auto", embed);
  const size_t d = model.config().hidden_size;
  size_t row = 0;
  for (const std::vector<int>& tokens : batch)
    for (size_t p = 0; p < tokens.size(); ++p, ++row) {
      INFO("row " << row << ", position " << p);
      const bool zeroed = p + 1 == tokens.size() || p == 1 || p == 2;
      CHECK(std::all_of(rows.begin() + static_cast<long>(row * d), rows.begin() + static_cast<long>((row + 1) * d),
                        [](float x) { return x == 0; }) == zeroed);
    }
}

TEST_CASE("interventions: one that no row of the run has is refused", "[intervene]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const auto added = [&](const std::string& text, size_t generated) {
    Hooks<float> hooks;
    add_interventions(parse_interventions(text, "--intervene", model.config()), {3, 5}, hooks, generated);
  };
  for (const std::string text : {"hook_embed@5=zero", "hook_embed@-6=zero", "hook_embed@0,5=zero", "hook_embed@5:=zero",
                                 "hook_embed@2:2=zero", "hook_embed=pin:5"}) {
    INFO(text);
    CHECK_THROWS_WITH(added(text, 0), Catch::Contains(text) && Catch::Contains("expected positions below 5"));
  }
  // One prompt's, or what is appended to it, is enough.
  for (const std::string text : {"hook_embed@4=zero", "hook_embed@-5=zero", "hook_embed@-9:=zero", "hook_embed=pin:4"})
    CHECK_NOTHROW(added(text, 0));
  CHECK_NOTHROW(added("hook_embed@6=zero;hook_embed=pin:6", 2));
  CHECK_THROWS_AS(added("hook_embed@7=zero", 2), InputError);
}

TEST_CASE("interventions: an error names the option, the text and what was expected", "[intervene]") {
  const Model model = Model::open(outputs + "tiny_llama3");
  const auto message = [&](const std::string& text) -> std::string {
    try {
      with(model, text);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(message("hook_embd=zero"), Contains("--intervene \"hook_embd=zero\"") && Contains("hook_embed"));
  CHECK_THAT(message("hook_embed=zeor"), Contains("is no action, expected zero"));
  CHECK_THAT(message("hook_embed#64=zero"), Contains("there is no element 64, expected 0 to 63"));
  CHECK_THAT(message("blocks.0.attn.hook_k#2=zero"), Contains("there is no head 2, expected 0 to 1"));
  CHECK_THAT(message("hook_embed=from:/nowhere"), Contains("/nowhere"));
  CHECK_THAT(message("hook_embed#1=pin:1;hook_embed#1=pin:2"), Contains("to two positions"));
}
