"""The model."""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from ._attribution import (Attribution, ScoreAttribution, attribute_logit, attribute_norm, attribute_score, lens)
from ._cache import ActivationCache
from ._errors import InputError
from ._interventions import Interventions, give
from ._library import Handle, Run, bytes_of, lib, made
from ._program import Results, command
from ._run import HookFunction, Names, Positions, chosen, one_sequence, run, token_batch, token_ids
from ._state import State, run_and_keep
from ._sweep import MetricFunction, Sweep, patch_sweep
from ._weights import Weights


@dataclass(frozen=True)
class Config:
    """What a model is, under TransformerLens's names."""

    model_type: str
    n_layers: int
    d_model: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    eps: float
    rope_theta: float
    sliding_window: Optional[int]
    tied_output: bool
    bos_id: Optional[int]
    eos_ids: Tuple[int, ...]
    notes: Tuple[str, ...]  #: what a reader of results should know


def _tiny_model() -> Path:
    """The model that comes along: of the package, or of the source tree that it lies in."""
    here = Path(__file__).resolve().parent
    for folder in (here / "share" / "sinkref" / "tiny_llama3", *(p / "reference_outputs" / "tiny_llama3" for p in here.parents)):
        if (folder / "config.json").exists():
            return folder
    raise InputError("Model: no path was given; expected a Hugging Face folder or a .gguf file")


class Model(Weights):
    """A LLaMA or Mistral checkpoint: a Hugging Face folder or a .gguf file, mapped and not read.

    path       None: the tiny model that comes along
    precision  "fp32", or "fp64" for the truth that errors are measured against
    softmax    "standard", or "one" for softmax_1 (a virtual key of score 0)
    kernel     "auto", "spec" (the scalar text), "avx2", "avx512", "neon": the same bits

    Several threads may run one model at a time.
    """

    def __init__(self, path: Union[None, str, "os.PathLike[str]"] = None, *, precision: str = "fp32",
                 softmax: str = "standard", kernel: str = "auto") -> None:
        if precision not in ("fp32", "fp64"):
            raise InputError(f'precision: found {precision!r}, expected "fp32" or "fp64"')
        if softmax not in ("standard", "one"):
            raise InputError(f'softmax: found {softmax!r}, expected "standard" or "one"')
        if not isinstance(kernel, str) or "\0" in kernel:
            raise InputError(f"kernel: found {kernel!r}, expected a name")
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise InputError(f"Model: found {path!r}, expected the path of a Hugging Face folder or a .gguf file")
        name = os.fsencode(_tiny_model() if path is None else path)
        if b"\0" in name:
            raise InputError("Model: the path holds a NUL, expected a Hugging Face folder or a .gguf file")
        self._arguments = (path, precision, softmax, kernel)
        self._fp64 = precision == "fp64"
        self._dtype = np.float64 if self._fp64 else np.float32
        self._handle = Handle(made(lib.sinkref_open, name, kernel.encode(), self._fp64, softmax == "one"),
                              lib.sinkref_close)
        about = json.loads(lib.sinkref_describe(self._handle.value))
        config = about["config"]
        #: the configuration; `cfg` is the same
        self.config = Config(**{**config, "eos_ids": tuple(config["eos_ids"]), "notes": tuple(config["notes"])})
        self.cfg = self.config
        self.path: str = about["path"]
        self._hooks = [SimpleNamespace(**hook) for hook in about["hooks"]]
        #: Hugging Face name to shape of every weight
        self.tensors: Dict[str, Tuple[int, ...]] = {n: tuple(s) for n, s in about["tensors"].items()}

    def __repr__(self) -> str:
        return f"Model({self.path!r})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return _reopened, self._arguments

    @property
    def hook_names(self) -> List[str]:
        """All hooks in the order in which they are computed."""
        return [hook.name for hook in self._hooks]

    # ---------------------------------------------------------------------------------------------- text

    def to_tokens(self, text: Union[str, Sequence[str]], prepend_bos: Optional[bool] = None) -> np.ndarray:
        """Token ids int64 [1, p] of a text, or [b, p] of several that have as many.

        prepend_bos  None: as the checkpoint says
        """
        if prepend_bos not in (None, True, False):
            raise InputError(f"prepend_bos: found {prepend_bos!r}, expected None, True or False")
        if not isinstance(text, (str, list, tuple, np.ndarray)) or len(text) == 0 and not isinstance(text, str):
            raise InputError(f"to_tokens: found {text!r}, expected a text or a list of them")
        texts = [text] if isinstance(text, str) else list(text)
        ids = [self._encode(t, prepend_bos) for t in texts]
        if len({len(i) for i in ids}) > 1:
            raise InputError(f"to_tokens: the texts have {[len(i) for i in ids]} tokens, expected as many each; "
                             "give run_with_cache the list of texts")
        return np.array(ids, np.int64).reshape(len(ids), -1)

    def to_string(self, ids: Any) -> str:
        """The text of token ids [p] or [1, p]. Bytes that are no UTF-8 become U+FFFD."""
        if isinstance(ids, (int, np.integer)) and not isinstance(ids, bool):
            ids = [ids]
        sequence = one_sequence(self, ids, "ids") if not isinstance(ids, str) else token_ids(ids)
        return bytes_of(lib.sinkref_decode, self._handle.value, sequence.ctypes.data, len(sequence)).decode(
            "utf-8", "replace")

    # ---------------------------------------------------------------------------------------------- runs

    def __call__(self, tokens: Any) -> np.ndarray:
        """Logits [b, p, d_vocab]."""
        logits, _ = self.run_with_cache(tokens, ())
        assert logits is not None
        return logits

    def run_with_cache(self, tokens: Any, names: Names = None, positions: Positions = None,
                       logits: Union[bool, str] = True, fwd_hooks: Sequence[Tuple[Names, HookFunction]] = (),
                       interventions: Interventions = ()) -> Tuple[Optional[np.ndarray], ActivationCache]:
        """Runs a prompt and keeps activations.

        tokens     text, ids [p] or [b, p], or a list of texts or of lists (of unequal lengths too: the shorter
                   are padded with 0 at the end)
        names      globs as "blocks.*.hook_resid_post", a list of them, or a function of a name; None: all
        positions  the positions to keep of every activation, as -1, [0, 5, -1] or slice(0, 8); None: all
        logits     True: [b, p, d_vocab]; "last": [b, d_vocab] of the last position; False: None, and only as much
                   of the model is run as the names need
        fwd_hooks  as for run_with_hooks; the cache has what the model went on with
        interventions  Intervention objects, or text as of --intervene; they come before the functions

        Returns (logits, cache). Shapes are a trace's: [b, p, ...], [b, H, q, k] for scores and pattern.
        """
        return run_and_keep(self, token_batch(self, tokens), names, positions, logits, fwd_hooks, interventions)

    def run_with_hooks(self, tokens: Any, fwd_hooks: Sequence[Tuple[Names, HookFunction]],
                       logits: Union[bool, str] = True, interventions: Interventions = ()) -> Optional[np.ndarray]:
        """Runs a prompt while functions see its activations, and change them.

        fwd_hooks  [(name, f)]: a name, glob or function of a name, and f(array, hook), called once for each hook
                   with all positions: [1, p, ...], or [1, H, q, k] for scores and pattern. What f changes in the
                   array, or returns in its place, the model goes on with. The array is f's own to keep.

        Returns the logits as run_with_cache does. An exception of f ends the run.
        """
        return self.run_with_cache(tokens, (), None, logits, fwd_hooks, interventions)[0]

    def generate(self, tokens: Any, count: int = 64, *, names: Names = (),
                 fwd_hooks: Sequence[Tuple[Names, HookFunction]] = (), interventions: Interventions = (),
                 each: Optional[Callable[[int], object]] = None
                 ) -> Union[np.ndarray, Tuple[np.ndarray, ActivationCache]]:
        """Continues one prompt greedily: the first of the largest logits, at most `count` times; it ends before an
        end-of-text token and where the context is full.

        names      activations to keep, of the prompt and of every generated token
        fwd_hooks  are called for the prompt, and then for each token
        each       is called with each token as it comes

        Returns the new tokens int64 [n]; with names (tokens, cache).
        """
        ids = one_sequence(self, tokens, "tokens")
        count = self._new_tokens(count, len(ids))
        captures = chosen(self, names, "names")
        result = run(self, [ids], captures=captures, fwd_hooks=fwd_hooks, interventions=interventions,
                     generate=count, each=each)
        return (result.generated, result.cache) if captures else result.generated

    def log_probs(self, tokens: Any, interventions: Interventions = ()) -> np.ndarray:
        """Natural log-probability of each token after those before it: float64 [p - 1], of tokens 1 to p - 1."""
        ids = one_sequence(self, tokens, "tokens")
        if len(ids) < 2:
            raise InputError(f"log_probs: found {len(ids)} tokens, expected at least two; the first has none before it")
        high = int(ids.max())
        if high >= self.cfg.d_vocab:
            raise InputError(f"log_probs: token id {high} is not in the vocabulary, expected 0 to "
                             f"{self.cfg.d_vocab - 1}")
        targets = np.ascontiguousarray(ids[1:])
        result = run(self, [np.ascontiguousarray(ids[:-1])], targets=targets, interventions=interventions)
        assert result.log_probs is not None
        return result.log_probs

    def perplexity(self, tokens: Any, interventions: Interventions = ()) -> float:
        """exp of minus the mean of log_probs."""
        return float(np.exp(-self.log_probs(tokens, interventions).mean()))

    def patch_sweep(self, corrupted: Any, clean: Any, metric: MetricFunction, hook: str = "hook_resid_pre", *,
                    layers: Positions = None, positions: Positions = None, by_head: bool = False,
                    observed: str = "logits", observed_position: int = -1) -> Sweep:
        """Activation patching: for each layer and position, `corrupted` is run with one activation of a run of `clean`
        in the place of its own, and the metric is taken. `sinkref patch-sweep` does the same.

        corrupted, clean    two prompts of as many tokens
        metric              a function of rows [cells, d_vocab] that gives one number a cell: logit_difference(a, b),
                            log_probability(t), probability(t), norm, or your own
        hook                what is patched, without its layer: "hook_resid_pre" or "resid_pre", "mlp_out", "z", ...
        layers, positions   all, or chosen as in run_with_cache
        by_head             each head by itself
        observed            the hook whose row at observed_position the metric is given: "logits", or for
                            norm or your own another, as "blocks.11.hook_resid_post"

        A cell computes only what its patch can have changed, and has the bits of a whole run.
        """
        return patch_sweep(self, corrupted, clean, metric, hook, layers=layers, positions=positions, by_head=by_head,
                           observed=observed, observed_position=observed_position)

    def attribute_logit(self, tokens: Any, token: int, position: int = -1, by: str = "head",
                        interventions: Interventions = ()) -> Attribution:
        """What each part adds to a token's logit at a position, with the final norm's scale as it is.

        by  "layer": embedding, attention and MLP of each layer; "head": each head and MLP; "neuron": each head and
            neuron. The values sum to the logit but for the engine's rounding, which has a derived bound.
        interventions  as in run_with_cache; at this position none of what the parts add up to: the residual stream,
            ln_final, the logits, attn_out where heads are split and mlp_out where neurons are
        """
        return attribute_logit(self, tokens, token, position, by, interventions)

    def attribute_norm(self, tokens: Any, layer: int, position: int = -1, by: str = "head",
                       interventions: Interventions = ()) -> Attribution:
        """What each part adds to the norm of the residual stream after a layer: its projection on the stream's
        direction. As attribute_logit."""
        return attribute_norm(self, tokens, layer, position, by, interventions)

    def attribute_score(self, tokens: Any, layer: int, head: int, query: int = -1, key: int = 0, by: str = "head"
                        ) -> ScoreAttribution:
        """QK attribution: what each pair of writers of the residual stream, one at the query's position and one at the
        key's, adds to an attention score, with ln1's scales as they are and RoPE applied.

        by  "layer": embedding, attention and MLP of each layer; "head": each head and MLP. The values sum to the
            score (hook_attn_scores) but for the engine's rounding, which has a derived bound.
        """
        return attribute_score(self, tokens, layer, head, query, key, by)

    def lens(self, tokens: Any, positions: Positions = None) -> np.ndarray:
        """The logit lens: the logits [layer, p, d_vocab] that the final norm and W_U make of the residual stream after
        each layer. The last layer's are the model's."""
        return lens(self, tokens, positions)

    def interventions_text(self, interventions: Interventions) -> str:
        """In the grammar of --intervene, one for each hook that is meant, with the SHA-256 of the numbers where they
        are given: what a trace's metadata has."""
        r = Run()
        kept = give(self, interventions, r)
        text = bytes_of(lib.sinkref_interventions, self._handle.value, ctypes.byref(r)).decode()
        del kept
        return text

    def start(self, tokens: Any = None) -> State:
        """A state with the tokens (none) run, to be continued and forked."""
        state = State(self)
        if tokens is not None:
            state.append(tokens, logits=False)
        return state

    # ----------------------------------------------------------------------------------- what is measured

    def sink(self, **options: Any) -> Results:
        """`sinkref sink --json`: sink layers, sink neurons with the causal check, repeats needed. Options as the
        command's: repeats=1000, word="the"."""
        return self._command("sink", options)

    def first_layer(self, **options: Any) -> Results:
        """`sinkref first-layer --json`: why a token that sees only itself is recognised; the cluster attack."""
        return self._command("first-layer", options)

    def report(self, out: Any, **options: Any) -> Results:
        """`sinkref report`: writes report.html, report.json and figures to the folder `out`; returns report.json."""
        with_out = {"out": os.fspath(out), **options}
        self._command("report", with_out)
        return json.loads(Path(os.fspath(out), "report.json").read_text(), object_hook=Results)

    def verify(self, candidate: Any, **options: Any) -> Results:
        """`sinkref verify --json`: where another implementation's trace (a file) first leaves the truth by more than
        rounding. `verdict` is "agree" or "differ"."""
        return command("verify", self.path, {"candidate": os.fspath(candidate), **options})

    # ------------------------------------------------------------------------------------------- helpers

    def _command(self, name: str, options: Dict[str, Any]) -> Results:
        _, _, softmax, kernel = self._arguments
        return command(name, self.path, {"softmax": softmax, "kernel": kernel, **options})

    def _encode(self, text: str, bos: Optional[bool] = None) -> np.ndarray:
        if not isinstance(text, str):
            raise InputError(f"text: found {type(text).__name__}, expected str")
        data = text.encode("utf-8", "surrogatepass")
        return np.frombuffer(bytes_of(lib.sinkref_encode, self._handle.value, data, len(data),
                                      -1 if bos is None else int(bos)), np.int32)

    def _select(self, globs: str, where: str) -> List[int]:
        return np.frombuffer(bytes_of(lib.sinkref_select, self._handle.value, globs.encode("utf-8", "replace"),
                                      where.encode()), np.uintp).tolist()

    def _new_tokens(self, count: int, before: int) -> int:
        """As many as fit in the context."""
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise InputError(f"count: found {count!r}, expected at least 1 new token")
        return max(1, min(int(count), self.cfg.n_ctx - before + 1))


def _reopened(path: Any, precision: str, softmax: str, kernel: str) -> Model:
    return Model(path, precision=precision, softmax=softmax, kernel=kernel)
