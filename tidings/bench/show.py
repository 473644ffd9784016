"""The table, the JSON file and the picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pygal
from rich.console import Console
from rich.table import Table

from tidings.bench.figures import Figure

PACKAGES = ("prefect", "fastapi", "uvicorn", "sqlalchemy", "asyncpg", "procrastinate")


def machine(now: datetime) -> dict[str, Any]:
    """What it was measured on."""
    return {
        "measured_at": now.isoformat(timespec="seconds"),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(console: Console, figures: Sequence[Figure], where: dict[str, Any]) -> None:
    """Ratios first."""
    shown = Table("", "ratio", "measured", "beside", "", "aim", "", title="Tidings beside its baselines")
    for number in (1, 2, 3):
        shown.columns[number].justify = "right"
    section = ""
    for figure in figures:
        if section and figure.section != section:
            shown.add_section()
        section = figure.section
        shown.add_row(
            figure.name,
            f"{figure.ratio:.2f}" if figure.ratio is not None else "",
            f"{_number(figure.value)} {figure.unit}",
            f"{_number(figure.baseline)} {figure.unit}" if figure.baseline is not None else "",
            figure.baseline_name or figure.note,
            _aim(figure),
            {True: "[green]met", False: "[red]missed", None: ""}[figure.met],
        )
    console.print(shown)
    packages = ", ".join(f"{name} {number}" for name, number in where["packages"].items())
    console.print(
        f"{where['cores']} cores of {where['cpu']}, load {where['load_before']:.1f} before, "
        f"Python {where['python']}, {packages}"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def _aim(figure: Figure) -> str:
    sign = "≥" if figure.better == "more" else "≤"
    parts = [f"ratio {sign} {figure.aim_ratio:g}"] if figure.aim_ratio is not None else []
    parts += [f"{sign} {figure.aim_value:g} {figure.unit}".strip()] if figure.aim_value is not None else []
    return ", ".join(parts)


def write(folder: Path, figures: Sequence[Figure], where: dict[str, Any]) -> list[Path]:
    """bench.json and bench.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    data, picture = folder / "bench.json", folder / "bench.svg"
    content = {"machine": where, "figures": [figure.as_json() for figure in figures]}
    data.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    picture.write_text(_picture(figures), encoding="utf-8")
    return [data, picture]


def _picture(figures: Sequence[Figure]) -> str:
    """Every figure with its baseline, as parts of the baseline: throughput to the right is good, waiting is not."""
    compared = [f for f in figures if f.ratio is not None and f.section != "growth"]
    chart = pygal.HorizontalBar(
        title="Tidings as a part of each baseline (baseline = 1, logarithmic)",
        logarithmic=True,
        print_values=True,
        value_formatter=lambda value: f"{value:.2f}",
        height=120 + 60 * len(compared),
        width=1000,
        show_legend=True,
        legend_at_bottom=True,
        disable_xml_declaration=True,
        js=[],
    )
    chart.x_labels = [f"{f.name} / {f.baseline_name}" for f in compared]
    for way, title in (("more", "throughput: more is better"), ("less", "time and cost: less is better")):
        chart.add(title, [f.ratio if f.better == way else None for f in compared])
    rendered: str = chart.render(is_unicode=True)
    return rendered
