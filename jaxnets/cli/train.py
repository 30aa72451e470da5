"""`jaxnets train`."""

from dataclasses import dataclass

from jaxnets.cli.tasks import of_task
from jaxnets.config import part_of
from jaxnets.runs.recipe import Recipe


@dataclass(frozen=True)
class Processes:
    """A run over several processes, and what `jaxnets train` does."""

    coordinator: str | None = None
    """host:port of process 0; None where JAX knows the cluster."""
    processes: int | None = None
    """Processes that share the run; 0 to ask the cluster."""
    process: int | None = None
    """Number of this process, from 0."""

    def run(self) -> None:
        if self.processes is not None:
            from jaxnets.training import initialize_distributed

            initialize_distributed(self.coordinator, self.processes or None, self.process)
        from jaxnets import runs
        from jaxnets.training.parallel import is_main_process

        config = part_of(self.recipe.Config, self)
        directory, history = runs.train(self.recipe, config)
        if is_main_process():
            last = history.epochs[-1]
            print(f"{history.headline} after {last['epoch']} epochs")
            print(f"checkpoint    {directory / 'checkpoints' / str(last['step'])}")
            print(f"curves        {directory / 'curves.png'}")
            if config.plots:
                drawn = sorted(path.name for path in directory.glob("*.png"))
                print(f"pictures      {', '.join(drawn)}")


def command(recipe: Recipe) -> type:
    """The command for a task: its configuration, and what belongs to several processes."""
    return of_task("Train", recipe, Processes, recipe.Config)
