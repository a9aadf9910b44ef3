"""Assignments: candidates, rules that choose among them, the proxy reward, and published rules."""
