"""Routers: networks that name a clip's best assignment, what they see, and trained ones at an operating point."""
