"""One process of a run over several: `distributed_worker.py COORDINATOR PROCESSES PROCESS DIR`."""

import json
import os
import sys
from pathlib import Path

os.environ["JAX_NUM_CPU_DEVICES"] = "2"
os.environ["JAX_PLATFORMS"] = "cpu"

from jaxnets.training import create_optimizer, fit, initialize_distributed, predict_all

if __name__ == "__main__":
    coordinator, processes, process, directory = sys.argv[1:]
    initialize_distributed(coordinator, int(processes), int(process))

    sys.path.insert(0, str(Path(__file__).parent))
    import jax
    from conftest import make_source, make_task

    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    state, history = fit(
        make_task(),
        make_source(),
        test=make_source(),
        optimizer=create_optimizer("momentum", 0.05),
        epochs=5,
        batch_size=32,
        log_every=1,
        directory=Path(directory) / "run",
        progress=False,
    )
    ragged = make_source(count=45, seed=1)
    parts = list(predict_all(make_task(), state.variables, ragged, batch_size=16))
    found = {
        "labels": [int(label) for batch, _ in parts for label in batch["label"]],
        "scores": [row.tolist() for _, outputs in parts for row in outputs],
        "losses": [record["loss"] for record in history.steps],
        "test_top1": history.epochs[-1]["test_top1"],
    }
    (Path(directory) / f"losses{process}.json").write_text(json.dumps(found))
