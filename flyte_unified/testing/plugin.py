"""The pytest plugin: what `pip install flyte-unified` gives every test suite."""
