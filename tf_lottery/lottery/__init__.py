"""Tickets, and the algorithm of the paper that finds them."""
