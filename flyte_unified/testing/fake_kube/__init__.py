"""A Kubernetes API server for tests: in your own process, on a free port, strict where a real one is strict.

    async with FakeKube.running() as cluster:
        config = cluster.kubeconfig(tmp_path / "config")

Any client that speaks JSON works against it, ``kubectl`` too (but for the few of its verbs that write protobuf, such as
``create configmap``). It runs no containers and has no scheduler: a kubelet, real or not, registers nodes and binds pods.
``cluster.faults`` makes it fail the ways a real one does.
"""

from flyte_unified.testing.fake_kube.access import User
from flyte_unified.testing.fake_kube.cluster import FakeKube
from flyte_unified.testing.fake_kube.errors import ApiError
from flyte_unified.testing.fake_kube.faults import Asked, Faults

__all__ = ["ApiError", "Asked", "FakeKube", "Faults", "User"]
