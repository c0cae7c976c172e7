"""The pages of `collect`: what they say, that foreign text does no harm, and how they are in a real browser."""

import base64
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from commands import Commands
from made_runs import line, make_run, step_line, write_lattice

from job.commandline import Parser
from job.config.flags import add_settings, read_flags
from job.config.settings_file import Record
from job.config.sources import read_configuration
from job.log.course import Course
from job.rundir.directory import RunDir
from slurm.login import collect
from slurm.login.keeping.segments import Stretch
from slurm.login.report.charts import codes_of, timeline_of
from slurm.login.report.provenance import commands_of
from slurm.login.report.svg import Plot, short

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e</title>&amp;{{ 7*7 }}"


def _page(run_dir: RunDir, out: Path) -> str:
    collect.run([str(run_dir.path), str(out)])
    return (out / run_dir.path.name / "report.html").read_text()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, "Finished at 20"),
        ({"state": "running", "step": 200, "job_id": "7"}, "Running: step 200 of 300, as of 20"),
        ({"state": "failed", "verdict": "RuntimeError: no memory\nmend it", "exit_code": 3}, "Exit code 3."),
        ({"state": "waiting", "step": 200}, "Not running, and not finished: step 200 of 300"),
        ({"state": "submitted", "step": 0, "segment": 0, "saturation": None}, "it has not begun"),
        (
            {"state": "running", "job_id": "7", "updated_at": "2026-01-01T00:00:00Z"},
            "Lost: its last sign of life was at",
        ),
        ({"state": "failed", "exit_code": 3}, "<code>aae-job --run-name made --runs-dir "),
        ({"state": "waiting", "step": 0, "total_steps": 0}, "step 0, of how many is not known"),
    ],
)
def test_a_page_says_how_its_run_stands(status: dict[str, Any], words: str, tmp_path: Path, commands: Commands) -> None:
    """In its first lines, as `status` shows it, with what it failed of and what to type next."""
    commands.add("squeue", "" if "Lost" in words else "exit 1")
    page = _page(make_run(tmp_path / "runs", status=status), tmp_path / "out")
    head = page.partition("<main>")[0]
    assert words in head
    assert status.get("verdict", "") in head


def test_numbers_say_of_which_step_they_are(tmp_path: Path) -> None:
    """That of the evaluation, though the run has ended later; the newest that the log or status.json tells."""
    newest = {"step": 350, "discriminator_loss": 1.234, "d_accuracy": 0.51}
    status = {"state": "finished", "step": 390, "evaluation": newest}
    page = _page(make_run(tmp_path / "runs", status=status), tmp_path / "out")
    for value, step in (("1.234", 350), ("0.510", 350)):
        assert re.search(rf"{re.escape(value)}</td>\s*<td[^>]*>{step}</td>", page), (value, step)
    assert not re.search(r"<td[^>]*>390</td>", page)


def test_of_a_run_that_its_settings_have_ended_no_command_is_named(tmp_path: Path) -> None:
    """The same command would meet the same numbers."""
    status = {"state": "failed", "reason": "nonfinite_loss", "exit_code": 3}
    head = _page(make_run(tmp_path / "runs", status=status), tmp_path / "out").partition("<main>")[0]
    assert "<p>Exit code 3.</p>" in head
    assert "<pre>" not in head


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0"), (12_000, "12,000"), (1.5e6, "1.5 M"), (-3e12, "-3e+12"), (0.05, "0.05"), (1e-4, "1e-4")],
)
def test_a_number_on_an_axis_has_room(value: float, words: str) -> None:
    """However large a loss has grown."""
    assert short(value) == words


def test_a_page_of_a_run_that_has_not_begun_or_lacks_everything(tmp_path: Path) -> None:
    """No log, no status, no settings that can be read: told, and a page all the same."""
    run_dir = make_run(tmp_path / "runs")
    for path in (run_dir.events_file, run_dir.status_file, *run_dir.final.iterdir(), *run_dir.lattices.iterdir()):
        path.unlink()
    run_dir.settings_file.write_text("{}")
    (run_dir.final / "codes.npz").write_bytes(b"PK no zip")
    page = _page(run_dir, tmp_path / "out")
    for words in ("no status.json", "nothing logged yet", "No lattice is here", "codes.npz cannot be drawn"):
        assert words in page


def test_a_page_is_small_enough_to_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 5 MB with any number of lattices, which are then chosen and counted; under 0.3 MB without, however long the log."""
    run_dir = make_run(tmp_path / "runs", status={"segment": 1})
    shutil.rmtree(run_dir.lattices)
    noise = np.random.default_rng(0)
    with run_dir.events_file.open("ab") as log:
        for step in range(400, 60_400, 10):
            log.write(step_line(step, 2, 70).replace(b"0.52}", f"{noise.random():.6f}}}".encode()))
        log.writelines(line("saturation", step, 2, 70, verdict="not_yet") for step in range(400, 60_400, 100))
    assert len(_page(run_dir, tmp_path / "out")) < 300_000
    for step in range(1, 71):
        write_lattice(run_dir.lattice_file(step), step, side=280)
    page = _page(run_dir, tmp_path / "out")
    assert 3_000_000 < len(page) < 5_000_000
    shown = page.count('alt="Lattice at step')
    assert f"{shown} of 70 are shown" in page
    assert 'alt="Lattice at step 70"' in page
    monkeypatch.setattr("slurm.login.report.run_page.MAX_PICTURES_BYTES", 10_000)
    write_lattice(run_dir.lattice_file(71), 71, side=280)
    page = _page(run_dir, tmp_path / "out")
    assert "Each of the 71 is too large for this page" in page
    assert len(page) < 300_000


def test_the_policy_allows_the_one_script_and_style_of_the_page_and_nothing_else(tmp_path: Path) -> None:
    """By their SHA-256; no address leads anywhere."""
    page = _page(make_run(tmp_path / "runs"), tmp_path / "out")
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0].replace("&#39;", "'")
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert " style=" not in page


def test_foreign_text_is_text(tmp_path: Path) -> None:
    """In a verdict, an error, a node's name, a setting: no tag, no template, nothing that steers a terminal."""
    status = {"state": "failed", "verdict": EVIL, "crash": {"traceback": EVIL}, "device": EVIL}
    run_dir = make_run(tmp_path / "runs", status=status)
    run_dir.settings_file.write_bytes(run_dir.settings_file.read_bytes().replace(b'"digits"', orjson.dumps(EVIL)))
    with run_dir.events_file.open("ab") as log:
        log.write(line("resumed", 300, 3, 90, from_step=300, host=EVIL, previous=EVIL, versions={EVIL: EVIL}))
        log.write(line("saturation", 300, 3, 91, verdict=EVIL, reason=EVIL))
    page = _page(run_dir, tmp_path / "out")
    assert page.count("<script>") == 1
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7*7 }}" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", page)


def test_the_command_makes_the_same_run(tmp_path: Path) -> None:
    """Typed as it stands, quotes and all, it gives the same settings, with those of its allocation where some were given."""
    given = {"latent_dim": "8", "lr_schedule": "cosine", "recipe": "tuned", "num_threads": "2", "seed": "3"}
    setup = json.dumps(["echo 'a b' $X; true"])
    made = read_configuration(
        {**given, "runs_dir": str(tmp_path), "slurm_setup": setup, "slurm_mem": "none"}, environment={}
    )
    here, there = commands_of(Record.of(made))
    assert "--batch-size" not in here
    assert "--slurm" not in here
    parser = Parser("x", "x", "x")
    add_settings(parser)
    words = shlex.split(there)
    assert words[:2] == ["aae-slurm", "submit"]
    again = read_flags(parser, words[2:]).read_configuration({"runs_dir": str(tmp_path)})
    assert (again.settings, again.allocation) == (made.settings, made.allocation)


def test_codes_lie_where_they_are_and_bear_their_class(tmp_path: Path) -> None:
    """In a picture of 400 by 400 over 3.3 standard deviations; what lies far out or is no number is counted."""
    codes = np.array([[0, 0], [6.6, 0], [0, -3.3], [100, 0], [np.nan, 1]], np.float32)
    np.savez(tmp_path / "codes.npz", codes=codes, labels=np.array([7, 1, 7, 2, 2]))
    drawn = codes_of(tmp_path / "codes.npz", 2.0, 8)
    # The furthest is at 50 standard deviations, so the picture goes to 6 of them: 12.
    assert '<text class="code f7" x="200 200" y="200 255">77</text>' in drawn.svg
    assert '<text class="code f1" x="310" y="200">1</text>' in drawn.svg
    assert "f2" not in drawn.svg
    assert "2 lie further out" in drawn.words
    assert "the first two of 8 dimensions" in drawn.words


def test_segments_lie_where_they_were_though_clocks_differ() -> None:
    """One by a clock that is behind that of the node before lies left of it, not outside; numbers keep a distance."""
    times = [(f"2026-01-01T0{start}:00:00Z", f"2026-01-01T0{start}:01:00Z") for start in (5, 0, 1)]
    stretches = [Stretch(number, started=started, ended=ended) for number, (started, ended) in enumerate(times, 19)]
    drawn = str(timeline_of(stretches, "2026-01-01T05:00:00Z"))
    places = [float(x) for x in re.findall(r'class="bar bar\d" x="([-\d.]+)"', drawn)]
    assert places == [391.0 - 0.3, 8.0, 84.5]
    many = [Stretch(n, started=f"2026-01-01T00:{n:02d}:00Z", ended=f"2026-01-01T00:{n:02d}:30Z") for n in range(1, 60)]
    labels = re.findall(r'x="([\d.]+)" y="15.0" text-anchor="middle">(\d+)<', str(timeline_of(many, "")))
    ends = [(float(x) - 2.7 * len(word), float(x) + 2.7 * len(word)) for x, word in labels]
    assert all(left > right + 5 for (_, right), (left, _) in pairwise(ends))


def test_a_legend_has_a_row_more_where_its_names_take_it() -> None:
    """All of it is within the picture, which grows."""
    plot = Plot("x", "x", "x")
    for number in range(8):
        plot.curve([(0, 1), (1, 2)], f"{'ABCDEFGH'[number]}, mean of 3", number)
    plot.level(1.386, "1.386: cannot tell")
    drawn = str(plot.svg())
    labels = re.findall(r'class="small" x="([\d.]+)" y="([\d.]+)" text-anchor="start">([^<]+)', drawn)
    assert len(labels) == 9
    assert all(float(x) + 5.4 * len(words) <= 400 for x, _, words in labels)
    assert {y for _, y, _ in labels} == {"12.5", "27.5", "42.5"}
    assert 'viewBox="0 0 400 266"' in drawn


def test_spikes_stay_in_the_curves(tmp_path: Path) -> None:
    """One step in a hundred thousand is seen."""
    from slurm.login.report.charts import curves_of

    course = Course()
    for step in range(1, 100_001):
        course.take({"event": "step", "step": step, "discriminator_loss": 9.0 if step == 54_321 else 1.0})
    words = dict(curves_of(course))["Discriminator loss: nats"]
    assert "between 1 and 9" in words


def _missing() -> str | None:
    names = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]
    if shutil.which("chromium") is None:
        names.append("chromium (apt-get install chromium)")
    return ", ".join(names) or None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium; in CI it has to be there."""
    missing = _missing()
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"not here: {missing}")
    sync_api = importlib.import_module("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of a finished and of a failed run with hostile words, and of both together."""
    folder = tmp_path_factory.mktemp("pages")
    make_run(folder / "runs", "finished")
    evil = {"state": "failed", "verdict": EVIL, "crash": {"traceback": EVIL * 20}, "exit_code": 3}
    make_run(folder / "runs", "failed" + "-long" * 20, latent_dim=8, status=evil)
    collect.run([*map(str, sorted((folder / "runs").iterdir())), str(folder / "out")])
    found = {path.parent.name.split("-")[0]: path for path in (folder / "out").glob("*/report.html")}
    return {**found, "comparison": folder / "out" / "comparison.html"}


class Visit:
    """A page that is open, with all that it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.told: list[str] = []
        self.page.on("console", lambda message: self.told.append(message.text))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))
        self.page.on("dialog", lambda dialog: self.told.append(dialog.message))
        self.page.on("request", lambda request: self._note(request.url, path.as_uri()))
        self.page.goto(path.as_uri())

    def _note(self, url: str, own: str) -> None:
        if url != own and not url.startswith("data:"):
            self.told.append(url)

    def words(self) -> str:
        """What can be read on it."""
        return str(self.page.inner_text("body"))


@pytest.mark.process
@pytest.mark.parametrize("name", ["finished", "failed", "comparison"])
def test_a_page_in_a_browser(name: str, browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    """Nothing is asked for or complained of, nothing sticks out at 360 pixels, it prints, and axe finds nothing serious."""
    axe = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    for scheme, rules in (("light", None), ("dark", ["color-contrast"])):
        visit = Visit(
            browser, pages[name], viewport={"width": 1200, "height": 900}, color_scheme=scheme, bypass_csp=True
        )
        found = axe.run(visit.page, options={"runOnly": rules} if rules else None).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == []
    visit = Visit(browser, pages[name], viewport={"width": 360, "height": 740})
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
    visit.page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert visit.told == []


@pytest.mark.process
def test_the_lattices_are_walked_through_by_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    """Arrow keys, play, and all at once; the step is told in words, to a screen reader too."""
    page = Visit(browser, pages["finished"]).page
    slider, words = page.locator("#frame"), page.locator("output")
    assert words.text_content() == "step 300, 3 of 3"
    assert not page.locator(".frames").is_visible()
    before = page.locator(".picture").get_attribute("src")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert words.text_content() == "step 200, 2 of 3"
    assert slider.get_attribute("aria-valuetext") == "step 200"
    assert page.locator(".picture").get_attribute("src") != before
    page.keyboard.press("Home")
    assert words.text_content() == "step 100, 1 of 3"
    page.locator(".play").focus()
    page.keyboard.press("Enter")
    page.get_by_text("step 300, 3 of 3").wait_for()
    assert page.locator(".play").text_content() == "Play"
    page.locator(".toggle").press("Space")
    assert page.locator(".frames img").count() == 3
    assert page.locator(".frames").is_visible()


@pytest.mark.process
def test_without_script_all_of_it_is_there(browser: Any, pages: dict[str, Path]) -> None:
    """The lattices side by side instead of one at a time."""
    with_script, without = (
        Visit(browser, pages["finished"]),
        Visit(browser, pages["finished"], java_script_enabled=False),
    )
    assert without.page.locator(".frames img").count() == 3
    assert without.page.locator(".frames").is_visible()
    assert not without.page.locator(".player").is_visible()
    assert without.page.locator("svg").count() == 7
    player = {"Play", "Step", "step 300, 3 of 3", "All at once"}
    assert set(with_script.words().splitlines()) - player <= set(without.words().splitlines())
