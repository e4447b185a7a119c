#pragma once

// All of sinkref, in reading order.

#include "sinkref/error.h"       // bad input is one line: what was expected, found, and the remedy
#include "sinkref/check.h"       // defects of a caller, in builds that look for them
#include "sinkref/tensor.h"      // numbers as they are stored, and matrices of them
#include "sinkref/checkpoint.h"  // a Hugging Face folder or a GGUF file, memory-mapped
#include "sinkref/config.h"      // what a model is: sizes, RoPE, norms
#include "sinkref/model.h"       // a checkpoint whose tensors fit its config
#include "sinkref/tiny_model.h"  // one that comes with sinkref
#include "sinkref/tokenizer.h"   // text to token ids and back
#include "sinkref/hooks.h"       // every activation by its name: to observe, to replace
#include "sinkref/number.h"      // the order of every sum, exp, cos and sin
#include "sinkref/definition.h"  // the model on one page: the definition of every bit
#include "sinkref/kernels.h"     // the same sums, fast
#include "sinkref/kv_cache.h"    // keys and values of one sequence
#include "sinkref/batch.h"       // sequences, chunks, shared beginnings
#include "sinkref/forward.h"     // a model being run
#include "sinkref/interventions.h"  // the paper's patch, ablation, blinding, as hooks
#include "sinkref/sweep.h"       // activation patching over layers, positions and heads
#include "sinkref/metric.h"      // one number of a row: what a patch is judged by
#include "sinkref/lens.h"        // the logit lens
#include "sinkref/attribution.h"  // the split of an attention score over what wrote the residual stream
#include "sinkref/sink.h"        // sink layers and sink neurons
#include "sinkref/trace.h"       // activations to a safetensors file, and from one
#include "sinkref/verify.h"      // where another implementation leaves the truth
