"""What runs beside a container that knows nothing of Flyte: it has its inputs as files before it starts, and leaves files.

``inputs`` is the init container, ``outputs`` the sidecar (``plugins.pods.raw`` puts them into a pod). They take the place of
Flyte's copilot and lay files out as it does, so that images made for it work. They speak to the store and to nobody else.
On a laptop ``container`` has a container between both.
"""

HANDED = "_CONTAINER_"
"""Before the name of a variable that is meant for the container, in the environment of the process that runs it."""
NOTE = "container.json"
"""In an attempt's directory: which program runs its container, under what name, and where its secrets are."""
UNREADABLE = "OutputUnreadable"
"""The code of an error.pb for a container that failed, or did not leave what it promised: which of both, its end tells."""
