"""The ledger: tables, queries and migrations on PostgreSQL."""

from tidings.ledger.store import Ledger

__all__ = ["Ledger"]
