"""What Leasehold is to reach beside the others, in the same run."""
import statistics

# Which figure of Leasehold, beside which of which system, and how many times it: at least or at most.
GOALS = [
    ("drain, two workers", "drain_2", "bullmq", "at least", 4.5),
    ("drain, one worker", "drain_1", "bullmq", "at least", 3.5),
    ("drain, two workers", "drain_2", "apalis-without-locks", "at least", 1.0),
    ("drain, one worker", "drain_1", "apalis-without-locks", "at least", 1.0),
    ("enqueue in bulk", "enqueue_bulk", "bullmq", "at least", 4.0),
    ("enqueue, concurrent", "enqueue_concurrent", "bullmq", "at least", 3.0),
    ("enqueue, one by one", "enqueue_one", "bullmq", "at least", 1.0),
    ("start latency, median", "latency_p50", "sidekiq", "at most", 0.5),
    ("start latency, 99th percentile", "latency_p99", "sidekiq", "at most", 1.0),
]


def judge(rounds):
    """Every goal whose systems were measured: the median of the rounds' ratios, and whether it is met."""
    judged = []
    for what, figure, other, bound, goal in GOALS:
        both = [one for one in rounds if figure in one.get("leasehold", {}) and figure in one.get(other, {})]
        if not both:
            continue
        ratios = [one["leasehold"][figure] / one[other][figure] for one in both]
        ratio = statistics.median(ratios)
        judged.append({
            "what": what, "beside": other, "bound": bound, "goal": goal, "ratio": ratio,
            "lowest": min(ratios), "highest": max(ratios),
            "met": ratio >= goal if bound == "at least" else ratio <= goal,
        })
    return judged


def line(goal, titles):
    """A judged goal as a line for people."""
    share = goal["ratio"] / goal["goal"]
    by = f"{abs(share - 1) * 100:.0f} % {'above' if share >= 1 else 'below'}"
    return (
        f"{'met   ' if goal['met'] else 'MISSED'} {goal['what']}: {goal['ratio']:.2f} × {titles[goal['beside']]} "
        f"({goal['lowest']:.2f}–{goal['highest']:.2f}), goal {goal['bound']} {goal['goal']:g} ×: {by}"
    )
