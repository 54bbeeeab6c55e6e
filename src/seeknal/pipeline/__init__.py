"""The nodes of a Seeknal project: what they are, what they need, and what they are made of."""
