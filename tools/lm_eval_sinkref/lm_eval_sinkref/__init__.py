"""sinkref as a model of lm-evaluation-harness (see tools/eval.md)."""
