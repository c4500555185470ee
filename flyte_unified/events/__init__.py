"""What others say happened to actions, judged by the ledger's one table of moves."""
