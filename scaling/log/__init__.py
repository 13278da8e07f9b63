"""Decisions on record: how they are written, explained, and shown as status and reports."""
