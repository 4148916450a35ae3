"""The table that is printed: as `make bench` prints that of the Rust side. Reads as Markdown too."""

from dataclasses import dataclass, field
from statistics import median

HEAD = ["case", "ours", "peer", "ratio", "target", "", "CPU s ours / peer"]


@dataclass
class Turns:
    """The figures of one contestant's turns, in the case's unit, and their processor seconds."""

    figures: list = field(default_factory=list)
    cpu_s: list = field(default_factory=list)

    def median(self):
        """The middle figure."""
        return median(self.figures)

    def with_spread(self):
        """The middle figure with the lowest and the highest."""
        return f"{short(self.median())} ({short(min(self.figures))}-{short(max(self.figures))})"


@dataclass
class Target:
    """What must hold of ours, or of ours divided by the peer's."""

    bound: float
    least: bool
    ratio: bool

    def text(self):
        """As the table says it."""
        sign = ">=" if self.least else "<="
        return f"{sign} {self.bound:.2f} x" if self.ratio else f"{sign} {short(self.bound)}"

    def verdict(self, ours, peer):
        """`ok`, or `MISSED`."""
        figure = ours / peer if self.ratio else ours
        return "ok" if (figure >= self.bound if self.least else figure <= self.bound) else "MISSED"


def ratio_at_least(bound):
    """Ours divided by the peer's is at least this."""
    return Target(bound, least=True, ratio=True)


def ratio_at_most(bound):
    """Ours divided by the peer's is at most this."""
    return Target(bound, least=False, ratio=True)


def at_most(bound):
    """Ours is at most this."""
    return Target(bound, least=False, ratio=False)


def against(case, unit, ours, name, peer, target):
    """A line with our figure beside a peer's."""
    our, their = ours.median(), peer.median()
    cpu = f"{median(ours.cpu_s):.2f} / {median(peer.cpu_s):.2f}" if ours.cpu_s and peer.cpu_s else ""
    return [
        f"{case} [{unit}]",
        ours.with_spread(),
        f"{name} {peer.with_spread()}",
        f"{our / their:.2f}" if their else "",
        target.text() if target else "",
        target.verdict(our, their) if target and their else "",
        cpu,
    ]


def alone(case, unit, ours, target):
    """A line with our figure beside what was asked of it."""
    cpu = f"{median(ours.cpu_s):.2f}" if ours.cpu_s else ""
    text, verdict = (target.text(), target.verdict(ours.median(), None)) if target else ("", "")
    return [f"{case} [{unit}]", ours.with_spread(), "", "", text, verdict, cpu]


def left_out(case, reason):
    """A line for what could not be run, and why."""
    return [case, f"not measured: {reason}", "", "", "", "", ""]


def render(lines):
    """The lines under a head, in columns."""
    widths = [max(len(row[column]) for row in [HEAD, *lines]) for column in range(len(HEAD))]
    rows = [HEAD, ["-" * width for width in widths], *lines]
    cells = [[cell.ljust(width) for cell, width in zip(row, widths)] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def short(number):
    """Three digits that matter, thousands apart."""
    magnitude = abs(number)
    if magnitude >= 1e6:
        return f"{number / 1e6:.2f} M"
    if magnitude >= 1e4:
        return f"{number / 1e3:.1f} k"
    if magnitude >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if magnitude >= 10 else f"{number:.2f}"
