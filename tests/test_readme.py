"""The pages are held to the code: their tables, commands, links and lengths; quick commands are run as they stand there."""

import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import small_settings
from PIL import Image

import job.__main__
import slurm.__main__
from aae.blocks import decode
from job.commands import COMMANDS as JOB_COMMANDS
from job.config.settings import FREE, TOTAL
from job.config.sources import FIELDS, variable
from job.log.events import EVENTS, Event
from job.results.weights import newest_weights
from job.rundir.directory import RunDir
from slurm.login import COMMANDS as SLURM_COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / folder / "README.md" for folder in (".", "aae", "job", "slurm", "tests"))
}
# The runs that examples name; here they are a small one.
RUNS = re.compile(
    r"digits-2d-seed\d-\w{8}|\bRUN\b|(?<=watch )one\b|(?<=status )rested\b|\bsweep-\w{8}\b|\bnight--seed=3"
)


def _settings_rows() -> list[str]:
    def on_resume(name: str) -> str:
        return "may grow" if name in TOTAL else "free" if name in FREE or name.startswith("slurm_") else "fixed"

    return [
        f"| `{variable(name)}` | {'' if f.default is None else f.default} | {on_resume(name)} | {f.description} |"
        for name, f in FIELDS.items()
    ]


def _event_rows() -> list[str]:
    rows = [f"| every record | `{name}` | {f.description} |" for name, f in Event.model_fields.items() if f.description]
    for event, model in EVENTS.items():
        rows.append(f"| **`{event}`** | | {(model.__doc__ or '').strip()} |")
        own = [name for name in model.model_fields if name not in Event.model_fields]
        rows += [f"| | `{name}` | {model.model_fields[name].description} |" for name in own]
    return rows


@pytest.mark.parametrize("rows", [_settings_rows(), _event_rows()], ids=["settings", "events"])
def test_tables_say_what_the_code_says(rows: list[str]) -> None:
    """Each table stands on its page line by line; if not, here is what belongs there."""
    assert "\n".join(rows) in PAGES["job/README.md"], "\n" + "\n".join(rows)


def test_the_first_page_is_read_to_its_end() -> None:
    """At most 200 lines and 14 KB; what not everybody needs stands on the other pages."""
    assert len(PAGES["README.md"].splitlines()) <= 200
    assert len(PAGES["README.md"].encode()) <= 14_000


def _blocks(page: str, language: str | None = "") -> list[str]:
    """The code blocks of a page that name a language, those that name none, or, for None, all."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)
    return [block for found, block in blocks if language in (found, None)]


def test_every_command_is_shown() -> None:
    """Each command stands in a code block of the page about it."""
    for page, prog, commands in (
        ("job/README.md", "aae-job", JOB_COMMANDS),
        ("slurm/README.md", "aae-slurm", SLURM_COMMANDS),
    ):
        shown = "\n".join(_blocks(page, None))
        assert [name for name in commands if f"{prog} {name}" not in shown] == []


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """Files, pictures and headings that a page points to are there."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if not link.startswith("http")]
    assert links or page == "tests/README.md"
    for link in links:
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.is_file(), link
        if anchor:
            assert anchor in _anchors(target.read_text()), link


# Commands on the pages that take longer than seconds, or need a network, a scheduler, a GPU or a whole data set.
SLOW = re.compile(
    r"aae-job( --|$| *#)|aae-job (fetch|bench|verify-resume)|aae-slurm (run|check)|aae-slurm submit(?! --dry-run)"
    r"|--parzen|--epochs|--max-steps|tuned-|S$|\| (jq|cat)"
)


def _commands() -> list[str]:
    """Every command in a code block that takes seconds, once."""
    lines = [line.removeprefix("$ ") for page in PAGES for block in _blocks(page) for line in block.splitlines()]
    found = [line for line in lines if re.match(r"(AAE_\w+=\S+ )*aae-(job|slurm)( |$)", line) and not SLOW.search(line)]
    return list(dict.fromkeys(re.sub(r" +#.*", "", line) for line in found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/ in it, as the examples have it, a small run that is finished, and scans/ of somebody's own."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "scans").mkdir()
    Image.new("L", (28, 28)).save(folder / "scans" / "7.png")
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in small_settings(max_steps=20, runs_dir=folder / "runs").items():
            patch.setenv(name, value)
        assert job.__main__.main([]) == 0
    for number, handler in handlers.items():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, handler)
    return folder


def test_there_are_quick_commands() -> None:
    """The pages show them, and none is passed over by mistake."""
    words = {tuple(re.sub(r"AAE_\w+=\S+ ", "", command).split()[:2]) for command in _commands()}
    for name in ("evaluate", "sample", "encode", "verify", "events-schema"):
        assert ("aae-job", name) in words
    for name in ("submit", "status", "watch", "log", "cancel", "collect", "compare"):
        assert ("aae-slurm", name) in words


# These ask squeue, or take longer than the quick tests should.
ASIDE = re.compile(r"aae-slurm (status|cancel)|aae-job evaluate")


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=pytest.mark.process) if ASIDE.match(c) else c for c in _commands()]
)
def test_quick_commands_do_what_the_page_says(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typed as they stand there, on a small run, they end as they should."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")  # all of them would wait for each other beside other tests
    command, _, out = RUNS.sub("small", command).partition(" > ")
    words = shlex.split(command)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        monkeypatch.setenv(name, value)
    main = {"aae-job": job.__main__.main, "aae-slurm": slurm.__main__.main}[words[0]]
    mistaken = "AAE_BATCHSIZE" in command
    assert main(words[1:]) == (2 if mistaken else 0), capsys.readouterr().err
    told = capsys.readouterr()
    if mistaken:
        (block,) = [b for page in PAGES for b in _blocks(page) if "AAE_BATCHSIZE" in b]
        assert told.err == block.partition("\n")[2]
    elif "--dry-run" in command:
        assert told.out.startswith("#!/bin/bash")
    elif "--csv" in command:
        assert len(told.out.splitlines()) == 1 + 20 // 7
        assert out.endswith(".csv")
    elif "events-schema" in command:
        assert json.loads(told.out)["$schema"]
    else:
        assert told.out
    if "--out" in words:
        written = Path(words[words.index("--out") + 1])
        picture = written / "000.png" if written.is_dir() else written
        assert picture.read_bytes().startswith(b"PK" if picture.suffix == ".npz" else b"\x89PNG")


def _run_python(page: str, folder: Path) -> dict[str, Any]:
    """Run the page's Python, on the small run; returns the names that it makes."""
    names: dict[str, Any] = {}
    for block in _blocks(page, "python"):
        exec(compile(RUNS.sub("small", block), page, "exec"), names)
    return names


def test_the_model_is_a_library_of_five_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines on the page decode and encode as `aae-job` does."""
    monkeypatch.chdir(folder)
    names = _run_python("aae/README.md", folder)
    weights = newest_weights(RunDir(folder / "runs" / "small"))
    image = decode(weights.model.decoder, torch.tensor([[0.5, -1.0]]))
    torch.testing.assert_close(names["image"], image.view(28, 28))
    torch.testing.assert_close(names["code"], weights.model.encoder(image))


def test_the_classifier_on_the_codes_says_how_many_it_gets_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On codes of a run of 20 steps, which know little of the digits: 21 %, give or take what a classifier learns otherwise."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert job.__main__.main(["encode", "small", "--out", "codes.npz"]) == 0
    capsys.readouterr()
    _run_python("job/README.md", folder)
    told = re.fullmatch(r"(\d+\.\d)% of held-out codes right\n", capsys.readouterr().out)
    assert told is not None
    assert 15 < float(told[1]) < 28
