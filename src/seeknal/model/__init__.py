"""Frozen values and pure functions: no I/O, no clock, no logging.

What the words mean stands in one module each: `ids`, `status`, `instants`, `records`, `changes`
(how one record follows from another), `intervals`, `schedule` (on `calendar` and `wall_clock`), `pending`,
`graph`, `codec`.
"""
