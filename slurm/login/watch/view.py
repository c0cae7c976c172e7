"""What a watch draws: lines of exactly the room there is, the least important left out first."""

from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from job.commandline import duration
from job.output import escaped
from slurm.login.states import heartbeat_age_s, progress_age_s
from slurm.login.watch.look import Look
from slurm.login.watch.sparkline import Ink, bar, sparkline
from slurm.login.watch.words import (
    counts,
    distance_words,
    end_words,
    group,
    limit_s,
    moment,
    segment_words,
    state_words,
    verdict_words,
)

COLOURS = {
    "finished": "green",
    "running": "green",
    "submitted": "yellow",
    "waiting": "yellow",
    "pending": "yellow",
    "within": "green",
    "saturated": "green",
}
_LABEL = 16  # columns of what stands at the left
_VALUE = 16
# The curves with their names, digits and what they come to when D cannot tell codes from prior.
_CURVES = (
    ("reconstruction", "reconstruction_loss", 4, None),
    ("discriminator", "discriminator_loss", 3, 1.386),
    ("generator", "generator_loss", 3, 0.693),
    ("D(prior)", "d_prior", 3, 0.5),
    ("D(code)", "d_code", 3, 0.5),
)


@dataclass
class Page:
    """Lines of a view, each with its rank: those with the highest are left out where there is no room."""

    width: int
    ink: Ink
    lines: list[tuple[int, Text]] = field(default_factory=list)

    def add(self, rank: int, *parts: str | tuple[str, str]) -> None:
        """A line of foreign text and styles, as wide as there is room for."""
        line = Text(no_wrap=True)
        left = self.width
        for part in parts:
            text, style = (part, "") if isinstance(part, str) else part
            plain = self.plain(text)
            if cell_len(plain) > left:
                plain = set_cell_size(plain, max(left - 1, 0)) + self.ink.more if left > 0 else ""
            line.append(plain, style=style)
            left -= cell_len(plain)
        self.lines.append((rank, line))

    def wrapped(self, ranks: list[int], label: str, text: str, style: str = "") -> None:
        """A text over as many lines as it has ranks; what is left of it then is cut off."""
        room = max(self.width - _LABEL, 1)
        words = self.plain(text).split(" ")
        for number, rank in enumerate(ranks):
            line = words.pop(0) if words else ""
            while words and cell_len(line) + 1 + cell_len(words[0]) <= room:
                line += " " + words.pop(0)
            if number == len(ranks) - 1 and words:
                line += " " + " ".join(words)
            if line or number == 0:
                self.add(rank, (f"{label if number == 0 else '':<{_LABEL}}", "dim"), (line, style))

    def plain(self, text: str) -> str:
        """A text as it can be shown here, on one line."""
        told = escaped(text).replace("\n", " ").replace("\t", " ")
        return told if self.ink.more == "…" else told.encode("ascii", "backslashreplace").decode()

    def fitted(self, height: int) -> list[Text]:
        """As many lines as there is room for, in order."""
        dropped = sorted(range(len(self.lines)), key=lambda n: (-self.lines[n][0], -n))[
            : max(len(self.lines) - height, 0)
        ]
        return [line for n, (_, line) in enumerate(self.lines) if n not in set(dropped)]


def page_of_run(look: Look, width: int, ink: Ink) -> Page:
    """The view of one run."""
    page = Page(width, ink)
    _head(page, look)
    page.add(90)
    _curves(page, look)
    page.add(91)
    word, sentence = verdict_words(look)
    page.wrapped([2, 22, 23], "verdict", f"{word}: {sentence}" if sentence else word, COLOURS.get(word, ""))
    if look.course.lattice is not None:
        path = str(look.run_dir.path / look.course.lattice)
        page.add(
            30, (f"{'lattice':<{_LABEL}}", "dim"), path if cell_len(path) + _LABEL <= width else look.course.lattice
        )
    page.add(92)
    for number, (time, words) in enumerate(list(look.course.news)[-5:][::-1]):
        page.add(24 + 2 * number, (f"{moment(time):<{_LABEL}}", "dim"), words)
    return page


def _head(page: Page, look: Look) -> None:
    shown = look.shown
    job = f"  job {shown.job_id}" if shown is not None and shown.job_id else ""
    room = page.width - len(look.state) - len(job) - 2
    name = page.plain(look.name)
    name = name if cell_len(name) <= room else page.ink.more + name[1 - room :] if room > 1 else ""
    page.add(0, (name, "bold"), "  ", (look.state, _style(look)), (job, "dim"))
    page.wrapped(
        [1, 20, 25, 27] if look.ended else [1, 20], "now", state_words(look), "red" if look.needs_person else ""
    )
    if shown is None:
        return
    status = shown.status
    if status.total_steps > 0:
        share = status.step / status.total_steps
        told = f" {100 * share:3.0f} %  step {status.step:,} of {status.total_steps:,}"
        room = page.width - _LABEL - len(told)
        page.add(1, (f"{'progress':<{_LABEL}}", "dim"), (bar(share, max(room, 0), page.ink), "cyan"), told)
    limit = f"; time limit in {duration(left)}" if (left := limit_s(look)) is not None else ""
    saved = f"; saved at step {status.checkpoint_step:,}" if status.checkpoint_step is not None else ""
    page.add(4, (f"{'segment':<{_LABEL}}", "dim"), f"{segment_words(look)}{limit}{saved}")
    if not look.ended:
        page.add(3, (f"{'end':<{_LABEL}}", "dim"), end_words(look))
    _pace(page, look)


def _pace(page: Page, look: Look) -> None:
    if look.shown is None or look.shown.state != "running":
        return
    status, record = look.shown.status, look.course.step
    told = [f"{record['images_per_s']:,.0f} images/s"] if record else []
    told += [f"heartbeat {duration(max(heartbeat_age_s(status), 0))} ago"]
    still_s = progress_age_s(status)
    told += [f"step {duration(max(still_s, 0))} ago"] if still_s is not None else []
    page.add(5, (f"{'pace':<{_LABEL}}", "dim"), ", ".join(told))


def _curves(page: Page, look: Look) -> None:
    room = page.width - _LABEL - _VALUE
    for rank, (label, name, digits, reference) in enumerate(_CURVES, start=6):
        series = look.course.curves[name]
        value = f"{series.last[1]:.{digits}f}" if series.last is not None else "-"
        beside = f" ({reference:g})" if reference is not None else ""
        line = sparkline(series.points(), room, page.ink, reference)
        page.add(rank, (f"{label:<{_LABEL}}", "dim"), f"{value + beside:<{_VALUE}}", (line, "cyan"))
    if (where := distance_words(look)) is not None:
        _, distance, band = look.course.evaluations[-1]
        told = f"{distance:.4f} {where} "
        line = sparkline(look.course.distance.points(), room - 22, page.ink, band)
        page.add(5, (f"{'energy distance':<{_LABEL}}", "dim"), (f"{told:<{_VALUE}}", COLOURS.get(where, "")),
                 f"null band to {band:.4f}  ", (line, "cyan"))  # fmt: skip


def _style(look: Look) -> str:
    return "bold red" if look.needs_person else f"bold {COLOURS.get(look.state, 'default')}"


def page_of_sweep(name: str, looks: list[Look], width: int, height: int, ink: Ink) -> Page:
    """The view of a sweep: a line of counts, and a line a run; without room the finished are left out first."""
    page = Page(width, ink)
    done = sum(look.shown.status.step for look in looks if look.shown is not None)
    total = sum(look.shown.status.total_steps for look in looks if look.shown is not None)
    share = done / total if total else 0.0
    page.add(0, (name, "bold"), f"  sweep of {len(looks)}: {counts(looks)}")
    told = f" {100 * share:3.0f} % of {total:,} steps"
    page.add(0, (bar(share, width - len(told), ink), "cyan"), told)
    page.add(90)
    shown = looks
    if len(looks) > height - 4:
        order = {"failed": 0, "lost": 0, "running": 1, "waiting": 2, "pending": 3}
        ranked = sorted(looks, key=lambda look: 0 if look.needs_person else order.get(group(look), 4))
        chosen = {id(look) for look in ranked[: max(height - 5, 0)]}
        shown = [look for look in looks if id(look) in chosen]
    widest = max((cell_len(page.plain(look.name)) for look in shown), default=0)
    name_width = min(widest, max(width - 52, 16))
    page.add(91, (f"{'run':<{name_width}} {'state':<10} done  reconstruction", "dim"))
    for look in shown:
        _row(page, look, name_width)
    if len(shown) < len(looks):
        page.add(0, (f"and {len(looks) - len(shown)} more", "dim"))
    return page


def _row(page: Page, look: Look, name_width: int) -> None:
    name = page.plain(look.name)
    if cell_len(name) > name_width:
        name = page.ink.more + name[1 - name_width :]  # the end tells runs of a sweep apart
    status = look.shown.status if look.shown is not None else None
    share = f"{100 * status.step / status.total_steps:3.0f} %" if status is not None and status.total_steps else "   - "
    series = look.course.curves["reconstruction_loss"]
    value = f"{series.last[1]:.4f}" if series.last is not None else "-"
    word, _ = verdict_words(look)
    room = page.width - name_width - 45
    line = sparkline(series.points(), room, page.ink) if room > 0 else ""
    page.add(
        0, f"{name:<{name_width}} ", (f"{group(look):<10}", _style(look)), f"{share} ", f"{value:>7} ",
        f"{line:<{max(room, 0)}} ", (word, COLOURS.get(word, "")),
    )  # fmt: skip
