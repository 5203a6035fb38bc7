"""What the counters cost (`task_counters`): the drain of queued no-op tasks with and without them, in pairs.

A run is one of `drain.py`: an empty Redis, the queue is filled, a worker with one process drains it. The two runs of a pair follow one
another, in an order that changes; the figures are medians of the pairs' ratios and differences, which a slow minute moves less than rates.
"""

import os
import statistics

from _harness import BenchError, arguments, chosen, finish, machine, redis_server, say, summary, table
from drain import drain

FIGURES = ("rate", "worker_cpu_us_per_task", "redis_cpu_us_per_task")


def main():
    """Run the pairs."""
    parser = arguments(__doc__.splitlines()[0], rounds=9, count=40_000)
    parser.add_argument("--results", choices=("off", "on"), default="off", help="are results stored?")
    options = parser.parse_args()
    (queue,) = chosen("umbel")
    pairs = []
    with redis_server() as server:
        for number in range(options.rounds):
            order = (False, True) if number % 2 else (True, False)
            pair = {on: run(queue, options, server, on=on) for on in order}
            pairs.append(pair)
            said = ", ".join(f"{figures['rate']:,.0f}/s {'with' if on else 'without'}" for on, figures in sorted(pair.items()))
            say(f"round {number + 1}: {said}: {pair[True]['rate'] / pair[False]['rate']:.1%}")
    result = {
        "benchmark": "counters", "machine": machine(), "count": options.count, "results": options.results,
        "with": {name: summary(pair[True][name] for pair in pairs) for name in FIGURES},
        "without": {name: summary(pair[False][name] for pair in pairs) for name in FIGURES},
        "rate_kept": summary(pair[True]["rate"] / pair[False]["rate"] for pair in pairs),
        "more_cpu_us_per_task": {name.partition("_")[0]: summary(more(pairs, name)) for name in FIGURES[1:]},
    }  # fmt: skip
    show(result)
    finish(result, options)


def run(queue, options, server, *, on):
    """Drain once.

    Raises:
        BenchError: a task is missing, or what was counted is not what was sent.
    """
    os.environ["UMBEL_TASK_COUNTERS"] = "1" if on else "0"
    figures = drain(queue, options.results == "on", options.count, server)
    keys = list(server.client.scan_iter("{celery}.tally:*".replace("{", "[{]")))
    counted = sum(int(count) for key in keys for count in server.client.hgetall(key).values())
    if figures["missing"] or counted != (options.count if on else 0):
        raise BenchError(f"{figures['missing']} of {options.count} tasks did not run, {counted} were counted")
    return figures


def more(pairs, name):
    """How much more CPU time each pair had with counters."""
    return [pair[True][name] - pair[False][name] for pair in pairs]


def show(result):
    """Print the table."""
    rows = [
        (name, *(f"{result[which][figure]['median']:,.1f}" for figure in FIGURES))
        for name, which in (("with counters", "with"), ("without", "without"))
    ]
    table("Drain of no-op tasks (us: CPU per task)", ("", "median/s", "worker us", "redis us"), rows)
    kept, worker, redis = (
        result["rate_kept"]["median"], *(result["more_cpu_us_per_task"][name]["median"] for name in ("worker", "redis"))
    )  # fmt: skip
    say(f"  of pairs: rate {kept:.1%}, worker {worker:+.2f} us, redis {redis:+.2f} us (spread of rates {spread(result):.1%})")


def spread(result):
    """How far the rounds' ratios lie from their median, on average."""
    ratios = result["rate_kept"]["rounds"]
    return statistics.fmean(abs(ratio - result["rate_kept"]["median"]) for ratio in ratios)


if __name__ == "__main__":
    os.environ.setdefault("C_FORCE_ROOT", "1")
    main()
