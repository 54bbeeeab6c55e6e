"""Stores of execution state, behind one contract.

`seeknal.state.backend` is the doorway: open a store there. `seeknal.state.contract` is the law that
every store keeps. Importing this package loads no driver.
"""
