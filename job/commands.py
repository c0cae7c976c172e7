"""The commands of `aae-job` beside training; each takes its arguments and returns an exit code."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from job.commandline import Parser, add_run
from job.datasets import check_dataset
from job.errors import EXIT_FINISHED, UsageError
from job.flags import add_settings, read_configuration_from
from job.machine import allotted_cpus
from job.rundir import RunDir


def fetch(arguments: list[str]) -> int:
    """downloads AAE_DATASET into AAE_DATA_DIR; needs internet"""
    parser = Parser(
        "aae-job fetch",
        "Downloads a data set through torchvision, for a machine with internet; nothing is downloaded while training.",
        "aae-job fetch --dataset mnist --data-dir data",
    )
    add_settings(parser, ("dataset", "data_dir"))
    settings = read_configuration_from(parser, arguments)[1].settings
    if settings.dataset == "digits":
        print("digits is part of this package: nothing to fetch (mnist, fashion-mnist and kmnist are downloaded)")
        return EXIT_FINISHED

    from job import data

    folder = data.fetch(settings.dataset, settings.data_dir)
    print(f"{settings.dataset} is in {folder}")
    return EXIT_FINISHED


def sample(arguments: list[str]) -> int:
    """decodes a lattice or prior samples from a run's newest weights"""
    parser = Parser(
        "aae-job sample",
        "Decodes a lattice, or with --random N prior samples, from a run's newest weights into a PNG.",
        "aae-job sample digits-2d-seed0-44136fa3 --random 100 --out samples.png",
    )
    add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.png", help="where to write the picture")
    parser.add_argument("--random", type=_count, metavar="N", help="decode N samples of the prior instead of a lattice")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the prior samples [0]")
    parser.add_argument("--size", type=_count, metavar="N", help="codes on each side of the lattice [the run's]")
    parser.add_argument(
        "--extent", type=_extent, metavar="X", help="outermost coordinate of a `unit` lattice [the run's]"
    )
    parser.add_argument(
        "--mode", choices=("unit", "quantile"), help="even steps, or equal prior mass a cell [the run's]"
    )
    options = parser.parse_args(arguments)
    run_dir: RunDir = options.run
    if not options.out.absolute().parent.is_dir():
        raise UsageError(f"--out {options.out}: there is no folder {options.out.absolute().parent}")

    if options.extent is not None and options.mode == "quantile":
        raise UsageError(
            f"--extent {options.extent}: a `quantile` lattice covers the whole prior; leave one of the two out"
        )
    mode = "unit" if options.extent is not None else options.mode

    from job.sample import newest_weights, random_samples, sample_lattice

    weights = newest_weights(run_dir)
    if options.random is not None:
        content, what = random_samples(weights, options.random, options.seed), f"{options.random} prior samples"
    else:
        content, what = sample_lattice(weights, size=options.size, extent=options.extent, mode=mode), "lattice"
    try:
        options.out.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--out {options.out} cannot be written: {error}") from error
    print(f"{what} of step {weights.step:,}: {options.out}")
    return EXIT_FINISHED


def evaluate(arguments: list[str]) -> int:
    """measures a run's newest weights on held-out data; prints, and writes evaluations/step-....json"""
    parser = Parser(
        "aae-job evaluate",
        "Measures a run's newest weights on all held-out images: reconstruction, distance of the codes from the prior, what\n"
        "the codes know of the classes, balance of the classes in samples. Prints, and writes evaluations/step-....json.",
        "aae-job evaluate digits-2d-seed0-44136fa3",
    )
    add_run(parser)
    parser.add_argument(
        "--parzen", action="store_true", help="estimate the log-likelihood too, by the paper's protocol"
    )
    parser.add_argument("--json", action="store_true", help="print the JSON that is written")
    options = parser.parse_args(arguments)
    run_dir: RunDir = options.run

    from job.evaluation import encoded
    from job.scores import evaluate_run, lines_of

    settings, found = evaluate_run(run_dir, parzen=options.parzen)
    if options.json:
        print(encoded(found).decode(), end="")
    else:
        print("\n".join([*lines_of(settings, found), f"  written            {run_dir.evaluation_file(found['step'])}"]))
    return EXIT_FINISHED


def verify(arguments: list[str]) -> int:
    """reads and checks every checkpoint and the event log of a run"""
    parser = Parser(
        "aae-job verify",
        "Checks every byte of every checkpoint, every record of the event log, and final/; changes nothing.\n"
        "Exit code 0: all good; 1: damage found; 2: no such run.",
        "aae-job verify digits-2d-seed0-44136fa3",
    )
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON array")
    options = parser.parse_args(arguments)
    run_dir: RunDir = options.run

    from job.verify import verify_run

    findings = verify_run(run_dir)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{'ok    ' if finding.good else 'DAMAGE'}  {finding.what}: {finding.seen}")
    return 0 if all(finding.good for finding in findings) else 1


def verify_resume(arguments: list[str]) -> int:
    """proves exact resume with the present settings on this machine"""
    parser = Parser(
        "aae-job verify-resume",
        "Trains the run that the settings describe once through, then again with N interruptions at random moments by random\n"
        "signals, half of them SIGKILL, and compares weights, lattices and losses byte for byte. Works in a folder of its\n"
        "own below AAE_RUNS_DIR, which it removes unless something differs.\n"
        "Exit code 0: equal; 1: something differs.",
        "AAE_MAX_STEPS=300 AAE_CHECKPOINT_EVERY_STEPS=50 aae-job verify-resume --kills 5",
    )
    parser.add_argument("--kills", type=_count, default=10, metavar="N", help="interruptions to make [10]")
    add_settings(parser)
    options, configuration = read_configuration_from(parser, arguments)
    settings = configuration.settings
    check_dataset(settings.dataset, settings.data_dir)
    settings = settings.model_copy(update={"num_threads": settings.num_threads or allotted_cpus()})

    from job.proof import prove, table

    try:
        settings.runs_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".verify-resume-", dir=settings.runs_dir))
    except OSError as error:
        raise UsageError(
            f"AAE_RUNS_DIR={settings.runs_dir} cannot be written: {error}; set it to another folder"
        ) from error
    equal = False
    try:
        proof = prove(settings, options.kills, folder, print)
        equal = not proof.differences
        print("\n".join(table(proof)))
        print("equal byte for byte" if equal else f"the runs are kept in {folder}")
    finally:
        if equal:
            shutil.rmtree(folder, ignore_errors=True)
    return EXIT_FINISHED if equal else 1


def bench(arguments: list[str]) -> int:
    """measures the lecture's loop, this project's and the hardware's floor"""
    parser = Parser(
        "aae-job bench",
        "Measures a training step on this machine: the lecture's loop as written, the same with the notebook's pictures, this\n"
        "project's in each precision, and its matrix products alone. They take turns, each in a process of its own. Let nothing\n"
        "else run meanwhile. Writes nothing.",
        "aae-job bench --turns 10",
    )
    parser.add_argument("--turns", type=_count, default=10, metavar="N", help="turns of about a second each [10]")
    parser.add_argument("--json", action="store_true", help="print the measurements as JSON")
    add_settings(parser)
    options, configuration = read_configuration_from(parser, arguments)
    settings = configuration.settings
    check_dataset(settings.dataset, settings.data_dir)
    settings = settings.model_copy(update={"num_threads": settings.num_threads or allotted_cpus()})

    from job.bench import as_json, table
    from job.bench import bench as measure

    result = measure(settings, options.turns, lambda line: print(line, file=sys.stderr))
    print(json.dumps(as_json(result), indent=1) if options.json else "\n".join(table(result)))
    return EXIT_FINISHED


def events_schema(arguments: list[str]) -> int:
    """prints the JSON Schema of the event log"""
    Parser(
        "aae-job events-schema",
        "Prints the JSON Schema (2020-12) that every line of a run's events.jsonl satisfies.",
        "aae-job events-schema > events.schema.json",
    ).parse_args(arguments)

    from job.events import events_schema as schema

    print(json.dumps(schema(), indent=1))
    return EXIT_FINISHED


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "fetch": fetch,
    "evaluate": evaluate,
    "sample": sample,
    "verify": verify,
    "verify-resume": verify_resume,
    "bench": bench,
    "events-schema": events_schema,
}


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise ValueError
    return int(text)


_count.__name__ = "number from 1 to 10,000"


def _extent(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


_extent.__name__ = "positive number"
