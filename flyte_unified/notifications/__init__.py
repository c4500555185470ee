"""Notifications: who is told how a run ended, and of a condition that waits for a signal.

What is owed is a row, written in the transaction that makes the run or the condition; so nothing is lost whatever dies. The
server that leads pays: it hears of ends, sends, and tries again what failed. A run never waits for any of it.
"""
