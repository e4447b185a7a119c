"""sinkref: a deterministic fp32 transformer, the ground truth for attention sinks.

    >>> import sinkref
    >>> model = sinkref.Model()                      # the tiny model that comes along
    >>> logits, cache = model.run_with_cache("Hello world", names="blocks.*.hook_resid_post")
    >>> cache["blocks.3.hook_resid_post"].shape      # [batch, position, d_model]

Names and shapes are TransformerLens's, batch first, with unfolded weights. Every number has the bits of the
program's trace, whatever the machine, the threads or how a prompt is split.
"""

from ._attribution import Attribution, ScoreAttribution
from ._cache import ActivationCache
from ._errors import InputError, InternalError
from ._hooks import HookPoint
from ._interventions import Intervention
from ._library import arithmetic_version, set_threads, threads, version
from ._model import Config, Model
from ._program import Results
from ._state import State
from ._sweep import Metric, Sweep, log_probability, logit_difference, norm, probability

__version__ = version()
__all__ = [
    "ActivationCache",
    "Attribution",
    "Config",
    "HookPoint",
    "InputError",
    "InternalError",
    "Intervention",
    "Metric",
    "Model",
    "Results",
    "ScoreAttribution",
    "State",
    "Sweep",
    "arithmetic_version",
    "log_probability",
    "logit_difference",
    "norm",
    "probability",
    "set_threads",
    "threads",
]
