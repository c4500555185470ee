"""Which RPCs there are and who answers them."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import flyteidl2
import pytest
from flyteidl2.project import project_service_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument, Unimplemented
from flyte_unified.rpc import idl
from flyte_unified.rpc.registry import Kind, Registry, snake_case


def test_every_service_is_known() -> None:
    """The table of services is what the installed flyteidl2 has."""
    found = {}
    for module in pkgutil.walk_packages(flyteidl2.__path__, "flyteidl2."):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                found[service.full_name] = module.name
    assert found == idl.MODULES


def test_nothing_is_loaded_early() -> None:
    """A registry with implementations imports no descriptor: a service's first call does."""
    program = """
import sys
from flyte_unified.rpc.registry import Registry
registry = Registry()
registry.add("flyteidl2.workflow.RunService", object())
loaded = [name for name in sys.modules if name.startswith("flyteidl2.") and "service" in name]
assert not loaded, loaded
assert registry.find("/flyteidl2.workflow.RunService/CreateRun")
assert "flyteidl2.workflow.run_service_pb2" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("rpc", "method"),
    [
        ("CreateRun", "create_run"),
        ("GetActionDataURIs", "get_action_data_uris"),
        ("GetOAuth2Metadata", "get_o_auth2_metadata"),
        ("LiteralsToLaunchFormJson", "literals_to_launch_form_json"),
        ("Get", "get"),
    ],
)
def test_method_names(rpc: str, method: str) -> None:
    """An RPC's name in snake case."""
    assert snake_case(rpc) == method


def test_every_rpc_has_an_entry() -> None:
    """Every RPC is listed; one without a handler says its name."""

    class Projects:
        async def get_project(self, message: object, ctx: CallContext) -> None: ...

    registry = Registry()
    registry.add("flyteidl2.project.ProjectService", Projects())
    methods = {method.procedure: method for method in registry.methods()}
    assert len({method.service for method in methods.values()}) == len(idl.MODULES)
    assert methods["/flyteidl2.project.ProjectService/GetProject"].handler is not None
    assert [method.procedure for method in methods.values() if method.handler] == [
        "/flyteidl2.project.ProjectService/GetProject"
    ]
    with pytest.raises(Unimplemented, match=r"^flyteidl2.app.AppService/Create is not built in this server$"):
        methods["/flyteidl2.app.AppService/Create"].built()
    assert methods["/flyteidl2.workflow.RunService/WatchRuns"].kind is Kind.SERVER_STREAM
    assert methods["/flyteidl2.workflow.InternalRunService/RecordActionStream"].kind is Kind.BIDI_STREAM


def test_unknown_and_twice() -> None:
    """A service that is not Flyte's needs its descriptor; two implementations of one are a mistake."""
    registry = Registry()
    with pytest.raises(ValueError, match=r"acme\.Service"):
        registry.add("acme.Service", object())
    registry.add("flyteidl2.app.AppService", object())
    with pytest.raises(ValueError, match="already"):
        registry.add("flyteidl2.app.AppService", object())
    assert registry.find("/flyteidl2.app.AppService/Nothing") is None
    assert registry.find("/acme.Service/Do") is None
    assert registry.find("/") is None


def test_codecs() -> None:
    """Both codecs read what they wrote; unknown JSON fields pass; an empty body is an empty message."""
    method = Registry().find("/flyteidl2.project.ProjectService/GetProject")
    assert method is not None
    for codec in ("proto", "json"):
        message = project_service_pb2.GetProjectRequest(id="p")
        data = method.encoders[codec](project_service_pb2.GetProjectResponse(project={"id": "p"}))
        assert data
        assert method.decoders["proto"](message.SerializeToString()) == message
        assert method.decoders[codec](b"") == project_service_pb2.GetProjectRequest()
    assert method.decoders["json"](b'{"id": "p", "more": 1}') == message
    for codec, wrong in (("proto", b"\xff"), ("json", b"{"), ("json", b"\xff"), ("json", b"[]"), ("json", b'{"id": 1}')):
        with pytest.raises(InvalidArgument, match=r"flyteidl2\.project\.GetProjectRequest"):
            method.decoders[codec](wrong)
