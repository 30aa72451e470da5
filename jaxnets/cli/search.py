"""`jaxnets search`."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxnets.cli.tasks import form_of
from jaxnets.config import part_of
from jaxnets.console import PlainConsole, print_table
from jaxnets.errors import InputError


@dataclass(frozen=True)
class Search:
    """Search for the learning rate, weight decay and the like, coarse to fine.

    Takes what `jaxnets train` takes, for all candidates alike. They are compared on a part of the
    training examples; the test examples are not touched."""

    recipe: ClassVar[Any]  # of the task, once `of` has made its form
    script: ClassVar[str | None] = None  # that registered something of one's own

    space: tuple[str, ...] = ()
    """What to search, as NAME=LOW:HIGH: learning_rate=1e-5:0.1 weight_decay=1e-4:1 momentum=0.5:0.99
    clip_norm=0.1:10. None for learning rate and weight decay, two decades about what is usual with the
    optimizer."""
    candidates: int = 24
    """How many are drawn for the first stage. Each further stage trains half as many: the best quarter
    of the one before, and new ones drawn around those."""
    stages: tuple[int, ...] = (2, 5, 12)
    """Epochs of each stage."""
    held_out: float = 0.2
    """Share of the training images to compare candidates by."""
    finder: bool = False
    """Only find a learning rate: train for 100 steps with one that rises, and draw the loss by it."""
    folds: int | None = None
    """Only cross-validate: train once for each of so many parts of the training examples, which is held
    out, and print a table."""
    together: int | None = None
    """Candidates trained at once; None for as many as fit into memory, on a CPU for one."""

    def run(self) -> None:
        from jaxnets import training
        from jaxnets.runs import finding, folding, searching

        config = part_of(self.recipe.Config, self)
        if self.folds is not None and self.finder:
            raise InputError("finder and folds: one at a time; leave one of them out")
        if self.folds is not None or self.finder:
            self._refuse_stages("folds" if self.folds is not None else "finder")
        if self.folds is not None:
            directory, result = folding.cross_validate(
                self.recipe, config, self.folds, script=self.script
            )
            _print_rows(result.table)
            print(f"found         {directory / folding.RESULT_FILE}")
            return
        if self.finder:
            directory, found = finding.find_rate(self.recipe, config, script=self.script)
            print(f"learning rate {found.suggestion:.2g}")
            print(f"picture       {directory / 'finder.png'}")
            command = json.loads((directory / finding.RESULT_FILE).read_text())["command"]
            print(f"to train with it:\n{command}")
            return
        directory, result = searching.search(
            self.recipe,
            config,
            searching.parse_space(self.space) or None,
            training.halving(self.candidates, self.stages),
            held_out=self.held_out,
            together=self.together,
            script=self.script,
        )
        _print_rows(result.table)
        for warning in result.warnings:
            PlainConsole().print(f"warning: {warning}", soft_wrap=True)
        print(f"found         {directory / searching.RESULT_FILE}")
        print(f"picture       {directory / 'search.png'}")
        command = json.loads((directory / searching.RESULT_FILE).read_text())["command"]
        print(f"to train with the best:\n{command}")

    def _refuse_stages(self, other: str) -> None:
        """Refuses options of the stages of a search where something else is asked for."""
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("space", "candidates", "stages", "held_out", "together"):
            if getattr(self, name) != fields[name]:
                raise InputError(f"{name}: {other} has no stages; leave it out")

    @classmethod
    def of(cls, recipe: Any) -> type:
        """The command with the configuration of a task."""
        return form_of(cls, recipe, recipe.Config)


def _print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints rows by their names of columns; a line parts stages, and the best is bold."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == "outcome" else "right")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        last = following is not None and following.get("stage") != row.get("stage")
        style = "bold" if row.get("outcome") == "best" else None
        table.add_row(*row.values(), style=style, end_section=last)
    print_table(table)
