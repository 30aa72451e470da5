"""Training runs as a whole: from a configuration to a directory, and back from it.

What is here knows no task, only its `Recipe`; `jaxnets.recipes` has all of them by name. The command
line is a thin face of both. Scripts that need more freedom call `jaxnets.training.fit` themselves.
"""

from jaxnets.config import ImageConfig, RunConfig
from jaxnets.runs.fitting import draw_plots, load_run, resume_command, train
from jaxnets.runs.recipe import Prepared, Recipe, Run, Served, Told
from jaxnets.runs.searching import search

__all__ = [
    "ImageConfig",
    "Prepared",
    "Recipe",
    "Run",
    "RunConfig",
    "Served",
    "Told",
    "draw_plots",
    "load_run",
    "resume_command",
    "search",
    "train",
]
