"""The nodes of a Seeknal project: what they are, what they need, and what they are made of.

Python nodes are functions in ``seeknal/**/*.py`` of a project, marked by `source`, `transform` or `command`:

    from seeknal.pipeline import transform

    @transform(inputs=["source.sales"])
    def totals(ctx):
        return ctx.ref("source.sales").aggregate("shop, sum(amount) AS amount")
"""

from seeknal.pipeline.python_nodes import command, source, transform

__all__ = ["command", "source", "transform"]
