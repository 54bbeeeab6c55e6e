"""The file store: a journal that is the truth, and readable JSON files that are its checkpoints."""
