"""Adds `sinkref` to lm-eval's table of models at the moment lm_eval.models is imported.

Imported by lm_eval_sinkref.pth whenever Python starts, so it must cost nothing: it imports only what
the interpreter has loaded by then, and steps aside after its one use.
"""

import importlib.util
import sys


class _WhenModelsLoad:
    """A finder for one module: lets the others find it, and registers after it has run."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "lm_eval.models":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            from lm_eval.api.registry import model_registry

            if "sinkref" not in model_registry:
                model_registry.register("sinkref", target="lm_eval_sinkref.model:SinkrefLM")

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _WhenModelsLoad)
