"""The portable export of a whole store, and its import into any other.

`seeknal.state.dump.writing` exports, `seeknal.state.dump.reading` opens and verifies an export, and
`seeknal.state.dump.importing` brings it into a store.
"""
