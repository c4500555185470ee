"""RunService and InternalRunService: what people and consoles ask of runs. Reads here; every write is the ledger's."""
