"""The curves of a training run: loss, headline, learning rate, and the size of the updates."""

from collections.abc import Sequence
from pathlib import Path

from jaxnets.outputs import plain, save_figure


def plot_curves(
    steps: Sequence[dict],
    epochs: Sequence[dict],
    path: str | Path,
    metric: str | None = None,
    words: str | None = None,
) -> None:
    """Draws a run's history: `plot_curves(history.steps, history.epochs, "curves.png")`.

    Four panels over the epochs: the loss and another metric in training and on the test set, the
    learning rate, and the ratio of the norm of an update to that of the parameters, with the band of
    0.001 to 0.01 in which it is commonly wanted (CS231n, "Ratio of weights:updates").

    Args:
        steps: records with `step`, `loss`, `update_ratio` and, where they are known, the metric and
            `learning_rate`.
        epochs: records with `step`, `epoch` and, where there is a test set, `test_loss` and the metric
            as `test_METRIC`.
        path: of the picture; its ending says the format.
        metric: that of the second panel; None for the first that was measured besides the loss.
        words: what it is called; None for its name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.5, 3.6), layout="constrained")
    loss, second, rate, ratio = figure.subplots(1, 4)
    if metric is None:
        others = [name for name in (epochs[-1] if epochs else ()) if name.startswith("test_")]
        metric = next((name[5:] for name in others if name != "test_loss"), "loss")
    per_epoch = epochs[0]["step"] / epochs[0]["epoch"] if epochs else 1

    def draw(panel, records, name, label, **style):
        points = [(r["step"] / per_epoch, r[name]) for r in records if name in r]
        if points:
            panel.plot(*zip(*points, strict=True), label=label, **style)

    train = {"color": "tab:blue", "linewidth": 1.0}
    test = {"color": "tab:orange", "marker": ".", "linewidth": 1.5}
    draw(loss, steps, "loss", "train", **train)
    draw(loss, epochs, "test_loss", "test", **test)
    draw(second, steps, metric, "train", **train)
    draw(second, epochs, f"test_{metric}", "test", **test)
    draw(rate, steps, "learning_rate", None, **train)
    draw(ratio, steps, "update_ratio", "|update| / |weights|", **train)
    ratio.axhspan(1e-3, 1e-2, color="tab:green", alpha=0.15, label="wanted: 0.001 to 0.01")
    loss.set_title("loss")
    second.set_title(plain(words or metric))
    rate.set_title("learning rate")
    ratio.set_title("update-to-weight ratio")
    for panel in (loss, ratio):
        panel.set_yscale("log")
    rate.ticklabel_format(style="sci", scilimits=(-2, 3), axis="y")
    for panel in (loss, second, rate, ratio):
        panel.set_xlabel("epoch" if epochs else "step")
        panel.grid(alpha=0.3)
        if panel.has_data() and panel is not rate:
            panel.legend()
    save_figure(figure, path, dpi=110)
