"""Keeping what a session holds on disk: snapshots written down by a process of their own, and read back."""
