"""What runs beside a container that knows nothing of Flyte: it has its inputs as files before it starts, and leaves files.

``inputs`` is the init container, ``outputs`` the sidecar (``plugins.pods.raw`` puts them into a pod). They take the place of
Flyte's copilot and lay files out as it does, so that images made for it work. They speak to the store and to nobody else.
"""
