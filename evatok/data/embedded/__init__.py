"""Clip sets that any machine can render: Freedoom, Arcade, and a mix of the two."""
