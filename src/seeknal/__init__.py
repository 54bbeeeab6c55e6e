"""The execution state of data pipelines: what ran, what is done, what is left.

Start at `seeknal.state` (the stores), `seeknal.tracking` (a recorder for any code) or the
``seeknal`` command. Importing this package loads no driver, no SQLAlchemy and no DuckDB.
"""

__version__ = "0.1.0"
