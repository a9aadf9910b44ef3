"""Scoring candidate assignments with the proxy: exact prefix tree, beam, and the tables of stage 2."""
