// The mechanism in a few lines, on the library alone: a position that sees only itself, as the first
// one does, gets a residual stream far longer than the others'. Prints ‖resid_post‖ of the first token
// and the mean of the others layer by layer, then the most likely next token.
//
//   c++ -std=c++20 hello_sink.cpp $(pkg-config --cflags --libs sinkref) -o hello_sink
//   ./hello_sink [MODEL]        a Hugging Face folder or a .gguf file; without one, the tiny model

#include <sinkref/sinkref.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

int main(int argc, char** argv) try {
  using namespace sinkref;
  const Model model = Model::open(argc > 1 ? argv[1] : tiny_model());
  const std::vector<int> tokens = {1, 9, 27, 14, 35, 20};

  std::vector<std::vector<double>> norms(model.config().layers);  // [layer][position]
  Hooks<float> hooks;
  for (size_t layer = 0; layer < norms.size(); ++layer)
    hooks.add({HookPoint::ResidPost, layer}, [&norms, layer](const Activation<float>& resid) {
      for (size_t r = 0; r < resid.rows.size(); ++r) {
        double squares = 0;
        for (size_t i = 0; i < resid.width; ++i) squares += double(resid.row(r)[i]) * resid.row(r)[i];
        norms[layer].push_back(std::sqrt(squares));
      }
    });

  Forward<float> forward(model, RunOptions());
  std::vector<Sequence<float>> batch;
  batch.push_back(forward.start(tokens));
  const Matrix<float> logits = forward.run(batch, hooks);

  for (size_t layer = 0; layer < norms.size(); ++layer) {
    double others = 0;
    for (size_t p = 1; p < tokens.size(); ++p) others += norms[layer][p] / double(tokens.size() - 1);
    std::printf("layer %2zu   first token %10.3f   others %10.3f\n", layer, norms[layer][0], others);
  }
  const float* row = logits.row(0);
  std::printf("most likely next token: %td\n", std::max_element(row, row + logits.cols) - row);
} catch (const sinkref::InputError& error) {
  std::fprintf(stderr, "hello_sink: %s\n", error.what());
  return 2;
}
