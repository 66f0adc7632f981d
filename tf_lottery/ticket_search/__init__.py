"""`TicketSearch`: find tickets by `compile` and `fit`, as in Keras."""

from tf_lottery.ticket_search.ticket_search import TicketSearch

__all__ = ["TicketSearch"]
