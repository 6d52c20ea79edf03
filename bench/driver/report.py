"""The table for the terminal and the page, and the chart."""
import statistics
from html import escape

BEGIN, END = "<!-- bench-peers -->", "<!-- /bench-peers -->"


def summary(rounds, key):
    """Median, smallest and largest of every figure of a system."""
    of_system = [one[key] for one in rounds if key in one]
    names = of_system[0].keys() if of_system else []
    values = {name: [one[name] for one in of_system] for name in names}
    return {name: {"median": statistics.median(v), "min": min(v), "max": max(v)} for name, v in values.items()}


def rate(figures, name):
    if name not in figures:
        return "–"
    return f"{figures[name]['median']:,.0f}"


def spread(figures, name):
    """How far the rounds are apart, as ± percent of the median."""
    value = figures.get(name)
    return "–" if not value else f"±{(value['max'] - value['min']) / 2 / value['median'] * 100:.0f} %"


def cost(figures, name):
    return f"{figures[name]['median']:.1f}" if name in figures else "–"


def rows(systems, summaries):
    for system in systems:
        of = summaries[system.key]
        ways = ["one", "concurrent", "bulk"]
        yield [
            system.title,
            f"{rate(of, 'drain_1')} ({spread(of, 'drain_1')})",
            f"{rate(of, 'drain_2')} ({spread(of, 'drain_2')})",
            cost(of, "drain_1_us"),
            " / ".join(rate(of, f"enqueue_{way}") for way in ways),
            " / ".join(cost(of, f"enqueue_{way}_us") for way in ways),
            f"{rate(of, 'latency_p50')} / {rate(of, 'latency_p99')}",
            system.lacks,
        ]


HEAD = [
    "", "drain jobs/s, one worker", "two workers", "Redis µs a job, drain",
    "enqueue jobs/s: one by one / concurrent / bulk", "Redis µs a job, enqueue", "start latency p50 / p99, µs",
    "what it does not guarantee",
]


def terminal(systems, summaries):
    """The table in lines that fit a terminal; what a system does not guarantee is below its figures."""
    short = ["", "drain/s, 1 worker", "2 workers", "Redis µs", "enqueue/s one/conc./bulk", "Redis µs", "latency µs p50/p99"]
    table = [short, *([*row[:-1]] for row in rows(systems, summaries))]
    widths = [max(len(row[at]) for row in table) for at in range(len(short))]
    lines = []
    for at, row in enumerate(table):
        cells = [cell.ljust(width) if not i else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
        if at:
            lines.append(f"    not guaranteed: {systems[at - 1].lacks}")
    return "\n".join(lines)


def markdown(systems, summaries, versions, about, judged):
    lines = ["![Jobs a second in a drain, by system](peers.svg)", "", about, ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|---|" + "--:|" * (len(HEAD) - 2) + "---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(systems, summaries)]
    lines += ["", "Versions and settings:", ""]
    for system in systems:
        lines.append(f"- {system.title}: {versions.get(system.key) or system.title}; {system.configuration}.")
    lines += ["", "Goals, as the median of the rounds' ratios:", ""]
    return "\n".join(lines + [f"- {goal}" for goal in judged])


def short(systems, summaries, about):
    """The table for the front page."""
    lines = [
        "![Jobs a second in a drain, by system](docs/peers.svg)", "",
        "| | drain jobs/s, one worker / two | enqueue in bulk, jobs/s | start latency p50, µs | what it does not guarantee |",
        "|---|--:|--:|--:|---|",
    ]
    for system in systems:
        of = summaries[system.key]
        drains = f"{rate(of, 'drain_1')} / {rate(of, 'drain_2')}"
        cells = [system.title, drains, rate(of, "enqueue_bulk"), rate(of, "latency_p50"), system.lacks]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", about])


def into_page(page, text):
    """Replaces what is between the markers of a page."""
    old = page.read_text()
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ValueError(f"{page.name} must have {BEGIN} and {END} once each, in this order: the table goes between them")
    head, rest = old.split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .small { font-size: 11px; fill: #59636e }
  .one { fill: #8ab4f8 } .two { fill: #1a73e8 } .ours .one { fill: #7ad0a2 } .ours .two { fill: #1a7f4b }
  .axis { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 } .axis { stroke: #3d444d }
  }
"""


def chart(systems, summaries, caption):
    """Two bars a system, jobs a second with one worker and with two. Readable on light and dark backgrounds."""
    left, width, bar, gap, top = 170, 520, 16, 16, 52
    largest = max(summaries[system.key][f"drain_{n}"]["median"] for system in systems for n in (1, 2))
    height = top + len(systems) * (2 * bar + gap) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" role="img">',
        f"<title>Jobs a second in a drain</title><style>{STYLE}</style>",
        '<text x="8" y="20" font-weight="bold">Drain of a backlog, jobs a second (more is better)</text>',
        f'<g><rect class="one" x="{left}" y="30" width="11" height="11"/>'
        f'<text class="small" x="{left + 16}" y="40">one worker</text>'
        f'<rect class="two" x="{left + 100}" y="30" width="11" height="11"/>'
        f'<text class="small" x="{left + 116}" y="40">two workers</text></g>',
    ]
    for at, system in enumerate(systems):
        y = top + at * (2 * bar + gap)
        out.append(f'<g{" class=" + chr(34) + "ours" + chr(34) if system.key == "leasehold" else ""}>')
        out.append(f'<text x="{left - 10}" y="{y + bar + 5}" text-anchor="end">{escape(system.title)}</text>')
        for n, name in ((1, "one"), (2, "two")):
            value = summaries[system.key][f"drain_{n}"]["median"]
            length = max(1, value / largest * width)
            at_y = y + (n - 1) * bar
            out.append(f'<rect class="{name}" x="{left}" y="{at_y}" width="{length:.0f}" height="{bar - 2}"/>')
            out.append(f'<text class="small" x="{left + length + 6:.0f}" y="{at_y + 11}">{value:,.0f}</text>')
        out.append("</g>")
    out.append(f'<line class="axis" x1="{left}" y1="{top - 4}" x2="{left}" y2="{height - 26}"/>')
    out.append(f'<text class="small" x="8" y="{height - 8}">{escape(caption)}</text></svg>')
    return "\n".join(out) + "\n"
