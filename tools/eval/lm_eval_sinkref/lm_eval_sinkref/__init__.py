"""sinkref as a model of lm-evaluation-harness (see tools/guide/eval.md)."""
