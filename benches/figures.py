#!/usr/bin/env python3
"""Draws docs/figures from the results that are committed.

    python3 benches/figures.py

Needs nothing beyond Python's standard library.
"""

import json
import re
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FIGURES = HERE.parent / "docs" / "figures"
sys.path.insert(0, str(HERE / "ablations"))
import run as ablations  # noqa: E402

SETS = {
    "job2skill-esco1.1.1": "Job2Skill",
    "skill2job-esco1.1.1": "Skill2Job",
    "jobnorm": "Job normalisation",
    "skillnorm-esco1.2.0": "Skill normalisation",
    "skillextract-house": "Skill extraction, House",
    "skillextract-tech": "Skill extraction, Tech",
}
# Okabe and Ito's colours, told apart by people who do not see red and green.
BEFORE, AFTER, LINE, TEXT, SOFT = "#8a94a6", "#0072b2", "#d8dde6", "#14203a", "#566380"
BETTER, WORSE = "#009e73", "#d55e00"


class Picture:
    """An SVG with its own ground, so that it reads in light and dark pages."""

    def __init__(self, width, height, title):
        self.size = (width, height)
        self.title = title
        self.parts = []

    def text(self, at, text, anchor="start", **style):
        style = {"fill": TEXT, "font-size": 13} | style
        given = " ".join(f'{key}="{value}"' for key, value in style.items())
        self.parts.append(f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" {given}>{escape(text)}</text>')

    def line(self, start, end, colour=LINE, width=1.0):
        (x, y), (to_x, to_y) = start, end
        self.parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}" stroke-width="{width}"/>'
        )

    def dot(self, at, colour, radius=5):
        self.parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius}" fill="{colour}"/>')

    def box(self, at, size, colour):
        self.parts.append(
            f'<rect x="{at[0]:.1f}" y="{at[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}" fill="{colour}"/>'
        )

    def write(self, name):
        width, height = self.size
        FIGURES.mkdir(parents=True, exist_ok=True)
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        head += 'font-family="system-ui, sans-serif" role="img">'
        ground = f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
        whole = [head, f"<title>{escape(self.title)}</title>", ground, *self.parts, "</svg>"]
        (FIGURES / f"{name}.svg").write_text("\n".join(whole) + "\n")


def average_precisions(name):
    """MAP and its interval of each test set, in percent."""
    sets = json.loads((RESULTS / "workbench" / f"{name}.json").read_text())["sets"]
    found = {}
    for one in sets:
        if one["split"] == "test" and one["name"] in SETS:
            values = next(metric for metric in one["metrics"] if metric["metric"] == "map")
            found[one["name"]] = [100 * values[part] for part in ("mean", "low", "high")]
    return found


def legend(picture):
    for x, colour, name in ((470, BEFORE, "all-MiniLM-L6-v2, cosine"), (665, AFTER, "uwe-mini")):
        picture.dot((x, 24), colour)
        picture.text((x + 10, 28), name, fill=SOFT)


def tasks():
    before, after = average_precisions("minilm-cosine"), average_precisions("uwe-mini")
    picture = Picture(760, 90 + 44 * len(SETS), "MAP of uwe-mini and of all-MiniLM-L6-v2 on the test sets")
    left, right = 200, 720
    place = lambda value: left + (right - left) * value / 100
    picture.text((20, 28), "MAP on the test sets, percent", **{"font-weight": 600, "font-size": 15})
    legend(picture)
    bottom = 50 + 44 * len(SETS)
    for mark in range(0, 101, 20):
        picture.line((place(mark), 44), (place(mark), bottom))
        picture.text((place(mark), bottom + 18), str(mark), "middle", fill=SOFT)
    for row, (key, name) in enumerate(SETS.items()):
        y = 68 + 44 * row
        picture.text((20, y + 4), name)
        (old, *_), (new, low, high) = before[key], after[key]
        picture.line((place(old), y), (place(new), y), AFTER, 2)
        picture.line((place(low), y), (place(high), y), AFTER, 5)
        picture.dot((place(old), y), BEFORE)
        picture.dot((place(new), y), AFTER, 6)
        picture.text((place(old) - 10, y + 4), f"{old:.1f}", "end", fill=SOFT)
        picture.text((place(max(new, high)) + 10, y + 4), f"{new:.1f}", **{"font-weight": 600})
    picture.write("tasks")


def thirds(report, run):
    """Head, middle and tail of each test set, from a report's row of a run."""
    text = (RESULTS / "workbench" / report).read_text()
    found = {}
    for key in SETS:
        part = text[text.index(f"## {key}.test.en") :]
        row = re.search(rf"^\| {run} \|.*$", part, re.M)[0]
        found[key] = [float(value) for value in row.split("|")[-3].split("/")]
    return found


def tail():
    before, after = thirds("report.md", "F"), thirds("uwe-mini.md", "A")
    picture = Picture(760, 410, "Precision at common, less common and rare targets, before and after training")
    picture.text((20, 28), "Mean precision at the relevant targets, percent", **{"font-weight": 600, "font-size": 15})
    legend(picture)
    for index, (key, name) in enumerate(SETS.items()):
        x, y = 50 + 240 * (index % 3), 60 + 185 * (index // 3)
        width, height = 190, 110
        top = max(before[key] + after[key]) * 1.1
        picture.text((x, y + 4), name, **{"font-weight": 600})
        at = lambda column, value: (x + 20 + column * (width - 40) / 2, y + 20 + height * (1 - value / top))
        for column, label in enumerate(("head", "middle", "tail")):
            picture.line(at(column, 0), at(column, top))
            picture.text((at(column, 0)[0], y + height + 38), label, "middle", fill=SOFT)
        picture.line(at(0, 0), at(2, 0), SOFT)
        for values, colour in ((before[key], BEFORE), (after[key], AFTER)):
            for column in (0, 1):
                picture.line(at(column, values[column]), at(column + 1, values[column + 1]), colour, 2)
            for column, value in enumerate(values):
                picture.dot(at(column, value), colour, 4)
                above = colour == AFTER
                middle = (at(column, value)[0], at(column, value)[1] + (-8 if above else 17))
                picture.text(middle, f"{value:.0f}", "middle", fill=colour, **{"font-size": 11})
    picture.write("tail")


def differences():
    """Each variant of at least three seeds against the base of the same seed, with its interval."""
    found = ablations.outcomes()
    base = found.pop("base")
    rows = [(name, *ablations.difference(runs, base)) for name, runs in found.items() if len(runs) >= 3]
    low = min(min(gap - half for _, gap, half in rows), 0)
    high = max(max(gap + half for _, gap, half in rows), 0)
    picture = Picture(760, 100 + 30 * len(rows), "What each change of the training costs or gives")
    left, right = 210, 690
    place = lambda value: left + (right - left) * (value - low) / (high - low)
    picture.text((20, 28), "Validation average against the base of the same seed, points", **{"font-weight": 600, "font-size": 15})
    bottom = 60 + 30 * len(rows)
    for mark in range(int(low) - 1, int(high) + 2):
        if low <= mark <= high:
            picture.line((place(mark), 44), (place(mark), bottom), SOFT if mark == 0 else LINE)
            picture.text((place(mark), bottom + 18), f"{mark:+d}" if mark else "base", "middle", fill=SOFT)
    for row, (name, gap, half) in enumerate(sorted(rows, key=lambda row: -row[1])):
        y = 62 + 30 * row
        colour = SOFT if abs(gap) <= half else BETTER if gap > 0 else WORSE
        picture.text((20, y + 4), name)
        picture.line((place(gap - half), y), (place(gap + half), y), colour, 3)
        picture.dot((place(gap), y), colour)
        picture.text((place(gap + half) + 8, y + 4), f"{gap:+.2f}", fill=SOFT)
    picture.text((20, bottom + 34), "Lines are 95 % intervals over the seeds; grey: they hold 0.", fill=SOFT, **{"font-size": 12})
    picture.write("ablations")


def main():
    tasks()
    tail()
    differences()


if __name__ == "__main__":
    main()
