"""Routers: networks that predict a clip's best assignment, their inputs, and trained ones at an operating point."""
