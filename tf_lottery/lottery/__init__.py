"""Tickets, and the search that finds them."""
