"""The clip sets that any machine can render: Freedoom, Arcade, and the two mixed."""
