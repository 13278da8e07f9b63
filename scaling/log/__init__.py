"""Decisions on record: journaled, replayed, explained, and shown as status and cost."""
