"""The ``seeknal`` command: one module per command group."""
