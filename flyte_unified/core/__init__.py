"""The words every room shares: ids, phases, errors, clocks. No I/O; imports nothing else of ours."""
