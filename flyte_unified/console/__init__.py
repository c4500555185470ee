"""Pages for people: what the addresses show that the SDK prints. Plain HTML from the server, readable without any script."""
