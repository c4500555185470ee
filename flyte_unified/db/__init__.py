"""The database: tables, one writer that commits in groups, readers. The only room, beside the stores, that knows SQL."""
