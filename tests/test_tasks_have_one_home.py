"""Nothing above or below a task's folder names the task, or asks for a metric by its name or type."""

import ast
import re
from pathlib import Path

import pytest

import jaxnets
from jaxnets import metrics, recipes
from jaxnets.models.families import FAMILIES

ROOT = Path(jaxnets.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
METRICS = ("top1", "top5", "exact")  # of the tasks that there are
KNOW_NO_METRIC = ("training", "runs", "cli", "explain", "config.py", "pretrained.py", "recipes.py")
METRIC_TYPES = {"Mean", "Metric", "Score", "Share", "Sum"}


def offered(task):
    return {task, *recipes.TASKS[task]}


def texts(tree):
    """The texts of a program, but not what documents it, with their lines."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.lineno, node.value


def said(tree):
    """The texts of a program and its names, with their lines."""
    yield from texts(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.lineno, f"{node.module or ''} {' '.join(alias.name for alias in node.names)}"
        elif isinstance(node, ast.Import):
            yield node.lineno, " ".join(alias.name for alias in node.names)
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def naming(words, paths, texts_alone=False):
    """The places among some files where one of the words is said, by a name or in a text."""
    pattern = re.compile(rf"(?<![\w.])(jaxnets\.)?({'|'.join(words)})(?!\w)")
    return [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in paths
        for line, text in (texts if texts_alone else said)(ast.parse(path.read_text()))
        if pattern.search(text)
    ]


NAME_TASKS = {  # beside the folder of the task
    ROOT / "recipes.py",  # what runs and commands know of it
    ROOT / "models" / "families.py",  # its models, which weights and summaries know without recipes
    ROOT / "metrics" / "__init__.py",  # `metrics.detection`, which is not of the task alone
}


# What is also the key of an example's label map and of the masks in COCO's files, and VOC's folder.
KEYS = {"segmentation": ROOT / "data"}


@pytest.mark.parametrize("task", recipes.TASKS)
def test_a_task_is_named_in_its_folder_and_in_two_tables_alone(task):
    # Tasks do not import one another, as tests/test_imports.py holds; a detector's loss may well have a
    # term that is called classification.
    homes, home = {ROOT / name for name in (*recipes.TASKS, *FAMILIES)}, ROOT / task
    outside = [p for p in SOURCES if homes.isdisjoint(p.parents) and p not in NAME_TASKS]
    keyed = [p for p in outside if KEYS.get(task) in p.parents]
    assert naming(offered(task), [p for p in outside if p not in keyed]) == []
    others = [word for word in offered(task) if word.lower() != task]
    assert not keyed or naming(others, keyed) == []
    assert naming(offered(task), [home / "recipe.py"])  # a net without holes


def test_what_runs_tasks_knows_no_metric_by_name():
    rooms = [p for p in SOURCES if p.relative_to(ROOT).parts[0] in KNOW_NO_METRIC]
    assert len(rooms) > 50
    assert naming(METRICS, rooms, texts_alone=True) == []
    assert naming(METRICS, [ROOT / "classification" / "task.py"], texts_alone=True)


def test_nothing_asks_for_the_type_of_a_metric():
    assert set(dir(metrics)) >= METRIC_TYPES
    asking = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("isinstance", "issubclass", "type")
        and METRIC_TYPES & {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node)}
    ]
    assert asking == []
