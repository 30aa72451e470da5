"""jaxnets: the classic vision architectures as pure JAX functions, equal to their references.

    import jaxnets

    model = jaxnets.create_model("lenet5", num_classes=10)
    task = jaxnets.Classification(model)
    data = jaxnets.data.load("digits")
    state, history = jaxnets.training.fit(task, data.train, test=data.test, optimizer=...)

Everything is imported when it is first used, so that `import jaxnets` is quick.
"""

import importlib

from jaxnets.recipes import TASKS

_PACKAGES = (
    "data",
    "explain",
    "layers",
    "losses",
    "metrics",
    "models",
    "recipes",
    "runs",
    "training",
    "weights",
    *TASKS,
)
_NAMES = {
    "InputError": "jaxnets.errors",
    "create_model": "jaxnets.models",
    "export_model": "jaxnets.exporting",
    "extract_features": "jaxnets.extraction",
    "list_models": "jaxnets.models",
    "load_exported": "jaxnets.exported",
    "load_pretrained": "jaxnets.pretrained",
    "summary": "jaxnets.explain",
    **{name: f"jaxnets.{task}" for task, offered in TASKS.items() for name in offered},
}

__all__ = [*_NAMES, *_PACKAGES]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"jaxnets.{name}")
    raise AttributeError(f"module 'jaxnets' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
