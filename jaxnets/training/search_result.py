"""The result of a hyperparameter search: every trial, the narrowed ranges, and the best trial."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from jaxnets.training.candidates import Outcome, Values

EDGE = 0.05  # share of a range's log width; if the best is this close to an end, widen the range

Space = dict[str, tuple[float, float]]  # lowest and highest value of each hyperparameter


@dataclass(frozen=True)
class Stage:
    """A stage of a search.

    Attributes:
        candidates: number of candidates: those kept by the previous stage, and new ones.
        epochs: number of epochs that each is trained for, from scratch.
        keep: number of best candidates that advance to the next stage; unused in the last stage.
    """

    candidates: int
    epochs: int
    keep: int = 1


@dataclass(frozen=True)
class Trial:
    """The training of one candidate in one stage.

    Attributes:
        stage: number of the stage, from 1.
        candidate: number of the candidate, from 1, in the order of drawing; the same in every stage.
        values: its hyperparameters.
        outcome: the outcome of its training.
    """

    stage: int
    candidate: int
    values: Values
    outcome: Outcome


@dataclass(frozen=True)
class SearchResult:
    """The result of a search so far.

    Attributes:
        stages: all stages, as requested.
        spaces: the ranges that each completed stage drew from.
        trials: the trials of the completed stages; within a stage, best first and given up last.
        monitor: the metric by which candidates are compared.
        form: format string of the metric, such as `"{:.2%}"`.
        lower_is_better: whether lower values of the metric are better.
        seed: the seed of the whole search.
    """

    stages: tuple[Stage, ...]
    spaces: tuple[Space, ...]
    trials: tuple[Trial, ...]
    monitor: str
    form: str
    lower_is_better: bool
    seed: int

    @property
    def best(self) -> Trial | None:
        """The best trial of the last stage in which any candidate finished; None if none finished.

        Trials of earlier stages were shorter, so their scores are not comparable.
        """
        finished = [trial for trial in self.trials if trial.outcome.stopped is None]
        return next((t for t in finished if t.stage == finished[-1].stage), None)

    def kept(self, stage: int) -> list[Trial]:
        """The trials of a stage that advance to the next; for the last stage, its best."""
        keep = self.stages[stage - 1].keep if stage < len(self.stages) else 1
        finished = [t for t in self.trials if t.stage == stage and t.outcome.stopped is None]
        return finished[:keep]

    @property
    def warnings(self) -> list[str]:
        """A warning for each hyperparameter whose best value lies at the edge of its initial range."""
        if self.best is None:
            return []
        found = []
        for name, (low, high) in self.spaces[0].items():
            value = self.best.values[name]
            place = math.log(value / low) / math.log(high / low)
            if EDGE <= place <= 1 - EDGE:
                continue
            end, wider = ("lower", "lower") if place < EDGE else ("upper", "higher")
            found.append(
                f"the best {name}, {value:.3g}, lies at the {end} edge of its range, {low:.3g} to "
                f"{high:.3g}: there may be better ones beyond it; search {wider} values too"
            )
        return found

    @property
    def table(self) -> list[dict[str, str]]:
        """A row for each trial, as text by heading; within each stage, best first."""
        best = self.best
        rows = []
        for trial in self.trials:
            outcome = trial.outcome
            row = {"stage": str(trial.stage), "number": str(trial.candidate)}
            row |= {name.replace("_", " "): f"{value:.3g}" for name, value in trial.values.items()}
            row["train loss"] = f"{outcome.losses[-1]:.4f}" if outcome.losses else ""
            for name, form in {"loss": "{:.4f}", self.monitor: self.form}.items():
                value = outcome.measured.get(name)
                row[f"held-out {name}"] = "" if value is None else form.format(value)
            if outcome.stopped is not None:
                row["outcome"] = f"given up, step {outcome.stopped}"
            elif trial is best:
                row["outcome"] = "best"
            else:
                row["outcome"] = "kept" if trial in self.kept(trial.stage) else ""
            rows.append(row)
        return rows

    def to_markdown(self) -> str:
        """The table in Markdown."""
        rows = self.table
        headings = list(rows[0])
        right = ["---" if name == "outcome" else "---:" for name in headings]
        lines = [headings, right, *(list(row.values()) for row in rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """The whole result for JSON; values that are not finite become None."""
        stages = [dataclasses.asdict(stage) for stage in self.stages]
        for stage, space in zip(stages, self.spaces, strict=False):
            stage["space"] = {name: list(ends) for name, ends in space.items()}
        trials = []
        for trial in self.trials:
            outcome = dataclasses.asdict(trial.outcome)
            for name in ("start", "stopped_loss"):
                value = outcome[name]
                outcome[name] = value if value is None or math.isfinite(value) else None
            about = {"stage": trial.stage, "candidate": trial.candidate, "values": trial.values}
            trials.append({**about, **outcome, "losses": list(outcome["losses"])})
        return {
            "seed": self.seed,
            "monitor": self.monitor,
            "form": self.form,
            "lower_is_better": self.lower_is_better,
            "best": None if self.best is None else self.best.candidate,
            "stages": stages,
            "trials": trials,
            "warnings": self.warnings,
        }
