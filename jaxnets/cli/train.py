"""`jaxnets train`."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxnets import recipes
from jaxnets.cli.signals import Terminated, until_terminated
from jaxnets.cli.tasks import form_of
from jaxnets.config import part_of
from jaxnets.errors import InputError


@dataclass(frozen=True)
class Train:
    """Train a model."""

    recipe: ClassVar[Any]  # of the task, once `of` has made its form
    script: ClassVar[str | None] = None  # that registered it

    coordinator: str | None = None
    """host:port of process 0; None where JAX knows the cluster."""
    processes: int | None = None
    """Processes that share the run; 0 to ask the cluster."""
    process: int | None = None
    """Number of this process, from 0."""

    def run(self) -> None:
        self._check_processes()
        if self.processes is not None:
            from jaxnets.training import initialize_distributed

            initialize_distributed(self.coordinator, self.processes or None, self.process)
        import jax

        from jaxnets import runs
        from jaxnets.training.parallel import is_main_process

        config = part_of(self.recipe.Config, self)
        # Several processes cannot end on their own: the others would wait for them for ever.
        alone = jax.process_count() == 1
        with until_terminated() if alone else nullcontext(lambda step: False) as stop:
            directory, history = runs.train(self.recipe, config, stop=stop, script=self.script)
            terminated = stop(0)
        if terminated and history.stopped:
            error = Terminated()
            error.add_note(f"resume it by {runs.resume_command(directory, self.script)}")
            raise error
        if is_main_process() and history.epochs:
            last = history.epochs[-1]
            print(f"{history.headline} after {last['epoch']} epochs")
            print(f"checkpoint    {directory / 'checkpoints' / str(last['step'])}")
            print(f"curves        {directory / 'curves.png'}")
            if config.plots:
                drawn = sorted(path.name for path in directory.glob("*.png"))
                print(f"pictures      {', '.join(drawn)}")

    def _check_processes(self) -> None:
        for name in ("coordinator", "process"):
            if getattr(self, name) is not None and self.processes is None:
                raise InputError(
                    f"{name} is {getattr(self, name)}, but processes is not given; give both"
                )
        for name, value in (("processes", self.processes), ("process", self.process)):
            if value is not None and value < 0:
                raise InputError(f"{name} is {value}; it must be at least 0")
        if self.process is not None and self.process >= self.processes:
            raise InputError(f"process is {self.process} of {self.processes}; they are numbered from 0")

    @classmethod
    def of(cls, recipe: Any) -> type:
        """The command with the configuration of a task."""
        return form_of(cls, recipe, recipe.Config)


Train.__doc__ = f"""Train a model: `jaxnets train [TASK]`, where TASK is {" or ".join(recipes.TASKS)}."""
