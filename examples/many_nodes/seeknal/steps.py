"""Many nodes from one function: layers of a hundred, each node needing one of the layer before."""

import os

from seeknal.pipeline import command

NODES = int(os.environ.get("MANY_NODES", "10000"))
WIDTH = 100


def step(number):
    needed = [f"command.step_{number - WIDTH}"] if number >= WIDTH else []

    @command(name=f"step_{number}", inputs=needed)
    def do_nothing(ctx):
        """Here stands what the node does."""

    return do_nothing


# A node is a function that a name of the file stands for.
for number in range(NODES):
    globals()[f"step_{number}"] = step(number)
