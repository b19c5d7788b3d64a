"""Killing everything at random moments, and looking at what is there afterwards."""
