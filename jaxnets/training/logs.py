"""The logs of a run: metrics.jsonl, TensorBoard event files, and the history in memory."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from jaxnets import atomic
from jaxnets.layout import METRICS_FILE


@dataclass
class History:
    """The metrics of a run.

    Attributes:
        steps: a dict for each logged interval of steps: `step`, `epoch`, `loss`, `top1`, `grad_norm`,
            `update_ratio`, `images_per_second` ..., averaged over the interval.
        epochs: a dict for each epoch: `epoch`, `step`, `train_loss`, `test_loss`, `test_top1` ...
        stopped: why the run ended before its last epoch; "" if it did not.
        headline: the latest result in words, such as "test accuracy 98.61%"; "" before the end of the
            first epoch.
    """

    steps: list[dict] = field(default_factory=list)
    epochs: list[dict] = field(default_factory=list)
    stopped: str = ""
    headline: str = ""


class Recorder:
    """Keeps a run's history and, given a directory, writes each record to it immediately.

    Args:
        directory: the run directory; None to keep the history in memory only.
        resume_at: the step from which the run resumes. Records of later steps, which will be repeated,
            are dropped from the file, so that none is counted twice.
    """

    def __init__(self, directory: str | Path | None, resume_at: int = 0):
        self.history = History()
        self._file = self._tensorboard = None
        if directory is None:
            return
        path = Path(directory) / METRICS_FILE
        if resume_at:
            self._load(path, resume_at)
        kinds = ("steps", "epochs")
        lines = [_line(kind, record) for kind in kinds for record in getattr(self.history, kind)]
        atomic.write_text(path, "".join(lines))
        self._file = open(path, "a")  # noqa: SIM115 - closed by `close`

        from tensorboardX import SummaryWriter

        # The suffix distinguishes the files of two starts within the same second.
        self._tensorboard = SummaryWriter(
            str(directory),
            purge_step=resume_at + 1,
            flush_secs=5,
            filename_suffix=f".{resume_at}.{os.getpid()}",
        )

    def add_steps(self, record: dict) -> None:
        self._add("steps", record)

    def add_epoch(self, record: dict) -> None:
        self._add("epochs", record)
        if self._tensorboard:
            self._tensorboard.flush()

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._tensorboard.close()

    def _add(self, kind: str, record: dict) -> None:
        getattr(self.history, kind).append(record)
        if self._file is None:
            return
        self._file.write(_line(kind, record))
        self._file.flush()
        for name, value in record.items():
            if name not in ("step", "epoch"):
                self._tensorboard.add_scalar(f"{kind}/{name}", value, record["step"])

    def _load(self, path: Path, resume_at: int) -> None:
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
                records = getattr(self.history, record.pop("kind"))
                if record["step"] <= resume_at:
                    records.append(record)
            except (ValueError, KeyError, TypeError, AttributeError):  # cut off when the run was killed
                continue


def read_history(directory: str | Path) -> History:
    """The history of a run directory, for plotting."""
    recorder = Recorder(None)
    recorder._load(Path(directory) / METRICS_FILE, resume_at=2**62)
    return recorder.history


def _line(kind: str, record: dict) -> str:
    return json.dumps({"kind": kind, **record}) + "\n"
