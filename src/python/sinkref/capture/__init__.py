"""Traces of other engines for `sinkref verify`: the tools of tools/capture.

    python -m sinkref.capture.hf MODEL --tokens 1,5,9,7x8 --out theirs.safetensors

`hf` and `make_gguf` need torch and transformers, `transformerlens` and `llamacpp` their engine: `pip install
sinkref[hf]`, `sinkref[transformerlens]` or `sinkref[llamacpp]` brings them. `pytest_sinkref` has `assert_agrees`.
"""
