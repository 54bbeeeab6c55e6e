"""Run a project's nodes incrementally; everything durable goes through `seeknal.tracking`."""
