"""Backups of a store: made while others write to it, verified, and restored in one step.

`generations` says what a backup is and finds those of a directory, `making` makes and removes them, `verifying` reads
all of one, and `restoring` brings one back.
"""
