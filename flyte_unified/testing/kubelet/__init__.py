"""A process kubelet: a virtual node that registers with any Kubernetes API server and runs pods' containers as local processes.

    async with Scheduler.running(kube), Kubelet.running(kube, python=Path("/project/.venv/bin/python")) as kubelet:
        ...
        kubelet.evict("default/pod")

or ``python -m flyte_unified.testing.kubelet --kubeconfig PATH --scheduler``. It speaks to the API server through
``flyte_unified.kube`` alone, and shows what a kubelet shows: phases, container states, reasons, exit codes, conditions, events,
logs, and the same order in which they come.

Processes, not containers. An image is an environment (``Images``), the machine's file system is every container's, pods'
addresses are all 127.0.0.1 (unless a ``Network`` gives them their own), and CPU limits, security contexts and resource claims
are not enforced. Memory limits are.

**The keeper of** ``launchers.processes`` **is the container runtime.** It outlives a kubelet, as a container runtime does, so
that a kubelet which is restarted finds containers, exits and logs again; it ends whole trees, watches memory, and starts the
SDK's ``a0`` from a fork server when ``warm`` is asked for. A second supervisor would have been a copy of it.

**Volumes are mounts.** A container that is not warm enters a mount namespace of its own (``enter``), where its volumes lie at
their mountPaths and its termination message has a file, and nothing of the machine's own is touched. It costs 40 ms of CPU.
Where the kernel does not allow it, pods with volumes are refused; so a task that wants a warm start has none.
"""

from flyte_unified.testing.kubelet.cluster import lose
from flyte_unified.testing.kubelet.deployments import Deployments
from flyte_unified.testing.kubelet.images import Images
from flyte_unified.testing.kubelet.kubelet import Kubelet
from flyte_unified.testing.kubelet.network import Network
from flyte_unified.testing.kubelet.scheduler import Scheduler
from flyte_unified.testing.kubelet.services import Pace

__all__ = ["Deployments", "Images", "Kubelet", "Network", "Pace", "Scheduler", "lose"]
