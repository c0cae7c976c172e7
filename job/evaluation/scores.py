"""`aae-job evaluate`: a run's newest weights in figures, for people and as a file."""

from typing import Any

from job.config.settings import Settings
from job.data.datasets import check_dataset
from job.data.images import load_images
from job.errors import UsageError
from job.evaluation.measures import encoded, evaluate_fully
from job.results.weights import weights_at_work
from job.rundir.directory import RunDir


def evaluate_run(run_dir: RunDir, *, parzen: bool) -> tuple[Settings, dict[str, Any]]:
    """Measure the newest weights on all held-out images, on the CPU, and write `evaluations/step-....json`.

    Raises UsageError if there are no weights or no data, or if the file cannot be written.
    """
    weights = weights_at_work(run_dir)
    settings = weights.settings
    check_dataset(settings.dataset, settings.data_dir)
    train, held_out = (
        load_images(settings.dataset, settings.data_dir, train=True),
        load_images(settings.dataset, settings.data_dir, train=False),
    )
    found = evaluate_fully(weights.model, train, held_out, settings, weights.step, parzen=parzen)
    path = run_dir.evaluation_file(weights.step)
    try:
        run_dir.replace(path, encoded(found))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}; make {run_dir.path} writable") from error
    return settings, found


def lines_of(settings: Settings, found: dict[str, Any]) -> list[str]:
    """An evaluation as lines for people: each figure beside the value that it has at best."""
    eigenvalues = found["code_cov_eigenvalues"]
    far = max(found["code_mean"], key=abs)
    lines = [
        f"step {found['step']:,}, held-out images of {settings.dataset}",
        f"  reconstruction     BCE {found['reconstruction_bce']:.4f} nats a pixel, MSE {found['reconstruction_mse']:.4f}",
        f"  codes and prior    energy distance {found['energy_distance']:.4f} "
        f"(chance: up to {found['energy_distance_q99']:.4f}), "
        f"a fresh classifier tells {found['c2st_accuracy']:.1%} right (chance: 50 %)",
        f"                     mean at most {abs(far):.3f} off, variance {eigenvalues[0]:.3f} to {eigenvalues[-1]:.3f} "
        "(0 and 1, in units of the prior)",
    ]
    if found["empty_cells"] is not None:
        lines.append(f"                     {found['empty_cells']} of 100 cells of equal prior mass are empty")
    if found["knn10_accuracy"] is not None:
        lines.append(
            f"  classes by codes   10 nearest neighbours {found['knn10_accuracy']:.1%} right, "
            f"linear {found['linear_probe_accuracy']:.1%}"
        )
    if found["class_share"] is not None:
        shares = " ".join(f"{100 * share:.1f}" for share in found["class_share"])
        lines.append(f"  classes of samples {shares} %")
    if found["parzen_log_likelihood"] is not None:
        lines.append(
            f"  Parzen             {found['parzen_log_likelihood']:.1f} +- {found['parzen_stderr']:.1f} nats (10,000 samples)"
        )
    return lines
