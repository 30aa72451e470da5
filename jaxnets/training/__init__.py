"""Training for any task, on any number of devices."""

from jaxnets.training.checkpoint import Checkpointer, CheckpointError
from jaxnets.training.divergence import DivergenceError
from jaxnets.training.evaluation import evaluate, predict_all
from jaxnets.training.finding import RateFinding, find_learning_rate
from jaxnets.training.fitting import fit
from jaxnets.training.logs import History, read_history
from jaxnets.training.optimizers import (
    create_optimizer,
    decay_mask,
    evaluation_params,
    list_optimizers,
    usual_settings,
)
from jaxnets.training.parallel import DataParallel, initialize_distributed
from jaxnets.training.schedules import create_schedule
from jaxnets.training.search_result import SearchResult, Stage, Trial
from jaxnets.training.searching import halving, search
from jaxnets.training.state import TrainState, create_state
from jaxnets.training.step import (
    UpdateRule,
    joined,
    joined_sums,
    make_eval_step,
    make_train_step,
    usual_rule,
)
from jaxnets.training.task import Headline, Task

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "DataParallel",
    "DivergenceError",
    "Headline",
    "History",
    "RateFinding",
    "SearchResult",
    "Stage",
    "Task",
    "TrainState",
    "Trial",
    "UpdateRule",
    "create_optimizer",
    "create_schedule",
    "create_state",
    "decay_mask",
    "evaluate",
    "evaluation_params",
    "find_learning_rate",
    "fit",
    "halving",
    "initialize_distributed",
    "joined",
    "joined_sums",
    "list_optimizers",
    "make_eval_step",
    "make_train_step",
    "predict_all",
    "read_history",
    "search",
    "usual_rule",
    "usual_settings",
]
