"""What workers do with claims, as strategies: verbs of the model with what is given to them.

A lease or a claim is given as a number, for the program to choose by among those that there are.
"""

from functools import partial
from math import prod

from hypothesis import strategies as st

WORKERS = 3
RUNS = ["r", "s"]
NODES = ["n", "N"]
KEYS = [("r", "w0"), ("s", None), ("nobody", "w2")]
"""What is locked; each worker begins with the lock at its place."""
TTLS_S = [30, 2000]

MOST = 127
"""Up to this, numbers are drawn evenly; of more than so many, mostly small ones."""

ticks = [(hour, hour + 1) for hour in range(4)]
spans = [*ticks, (0, 2), (1, 3), (2, 4)]
names = ["p", "\u00e9"]
ranges = [*spans, *names]
wanted = [ticks, names, spans[::-1], ticks, ticks, [], [(0, 1)], [(1, 3)], [(0, 2)], names]
mostly_one = [NODES[0], NODES[1], NODES[0], NODES[0]]
choices = range(10)


def action(verb, **options):
    """Give a verb one of all that it can be given, in few draws: they take longer than all else."""
    groups = [{}]
    for name, values in {"worker": range(WORKERS), **options}.items():
        if len(values) * prod(map(len, groups[-1].values())) > MOST:
            groups.append({})
        groups[-1][name] = values

    def chosen(*numbers):
        given = {}
        for number, group in zip(numbers, groups, strict=True):
            for name, values in group.items():
                number, index = divmod(number, len(values))
                given[name] = values[index]
        return verb, given

    return st.builds(chosen, *(st.integers(0, prod(map(len, group.values())) - 1) for group in groups))


def weighted(*pairs):
    """Give what one of some strategies gives, each as often as its weight says."""
    return st.sampled_from([each for weight, each in pairs for _ in range(weight)]).flatmap(lambda each: each)


takes = action(
    "take",
    lease=choices,
    node=mostly_one,
    wanted=wanted,
    limit=[1, 2, 1, 9, 1, 2, 9, 0],
    most=[1, 2, 1, 9],
    run=[RUNS[0], RUNS[0], *RUNS],
)
completions = action("complete", slip=choices, rows=[None, 0, 3])
failures = action("fail", slip=choices, error=["boom", "caf\u00e9"])
returns = action("give_back", slip=choices)
additions = action("add", node=mostly_one, run=[RUNS[0], *RUNS], span=ranges, rows=[None, 3])
restatements = action("restate", node=mostly_one, span=ranges)
restatements_of_intervals = action("restate", node=mostly_one, span=spans)
retries = action("retry", node=mostly_one)

actions = weighted(
    (10, takes),
    (2, completions),
    (3, failures),
    (2, returns),
    (2, additions),
    (2, restatements),
    (2, retries),
    (7, action("acquire", key=KEYS, ttl_s=TTLS_S)),
    (1, action("break_lock", key=KEYS)),
    (1, action("release", key=KEYS)),
    (1, action("pass_time", seconds=[31, 900])),
    (1, action("reopen")),
    (1, action("create_run", run=RUNS)),
    (1, action("end_run", run=RUNS)),
    (1, action("delete_run", run=RUNS)),
)
reading_first = weighted((4, takes), (2, retries), (1, completions), (1, failures), (1, returns))
"""What can be cut open."""
deferrable = weighted((2, completions), (2, failures), (1, returns), (1, additions), (1, restatements_of_intervals))
"""What can be a part of a transaction."""
few = partial(st.lists, max_size=3)
