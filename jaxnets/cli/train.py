"""`jaxnets train`."""

from dataclasses import dataclass

from jaxnets.config import Config, alone


@dataclass(frozen=True)
class Train(Config):
    """Train a classifier; with no arguments, LeNet-5 on scikit-learn's digits.

    With --task captioning a captioner: Show, Attend and Tell on scenes."""

    coordinator: str | None = None
    """With several processes: host:port of process 0. None where JAX knows the cluster."""
    processes: int | None = None
    """With several processes: how many there are; 0 to ask the cluster (SLURM, TPU pod ...)."""
    process: int | None = None
    """With several processes: the number of this one, from 0."""

    def run(self) -> None:
        if self.processes is not None:
            from jaxnets.training import initialize_distributed

            initialize_distributed(self.coordinator, self.processes or None, self.process)
        from jaxnets import runs

        config = alone(self)
        directory, history = runs.train(config)
        last = history.epochs[-1]
        from jaxnets.training.parallel import is_main_process

        if is_main_process():
            captions = config.task == "captioning"
            measured = "exact sentences" if captions else "accuracy"
            score = last["test_exact" if captions else "test_top1"]
            print(f"test {measured} {score:.2%} after {last['epoch']} epochs")
            print(f"checkpoint    {directory / 'checkpoints' / str(last['step'])}")
            print(f"curves        {directory / 'curves.png'}")
            if config.plots:
                drawn = sorted(path.name for path in directory.glob("*.png"))
                print(f"pictures      {', '.join(drawn)}")
