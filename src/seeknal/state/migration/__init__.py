"""Moving the state of one store into another: a preview, a lock on both ends, a verification and an undo.

`seeknal.state.migration.planning` previews, `seeknal.state.migration.moving` moves, and
`seeknal.state.migration.record` keeps what is needed to go back.
"""
