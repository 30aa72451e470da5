"""jaxnets: the classic vision architectures as pure JAX functions, equal to their references.

    import jaxnets

    model = jaxnets.create_model("lenet5", num_classes=10)
    task = jaxnets.Classification(model)
    data = jaxnets.data.load("digits")
    state, history = jaxnets.training.fit(task, data.train, test=data.test, optimizer=...)

Everything is imported when it is first used, so that `import jaxnets` is quick.
"""

import importlib

_PACKAGES = (
    "captioning",
    "data",
    "explain",
    "layers",
    "losses",
    "metrics",
    "models",
    "runs",
    "training",
    "weights",
)
_NAMES = {
    "Captioning": "jaxnets.captioning",
    "Classification": "jaxnets.classification",
    "InputError": "jaxnets.errors",
    "create_captioner": "jaxnets.captioning",
    "create_model": "jaxnets.models",
    "list_models": "jaxnets.models",
    "load_pretrained": "jaxnets.pretrained",
    "summary": "jaxnets.explain",
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
