"""Carries out decisions: stores orders, launches nodes through providers, tells nodes to leave and ends them."""
