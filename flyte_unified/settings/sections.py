# ruff: noqa: RUF009  # _setting() returns a dataclass field, not a shared value
"""The sections of the settings: what each setting is, its default and its unit. Read by ``tree`` and by nobody else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

Seconds: TypeAlias = float
"""A duration; written as a number of seconds or with a unit: ``500ms``, ``30s``, ``5m``, ``1h``, ``2d``."""
Size: TypeAlias = int
"""An amount of bytes; written as a number or with a unit: ``64MiB``, ``1GB``."""
Strings: TypeAlias = tuple[str, ...]
"""Written as a list, or as text with commas."""

T = TypeVar("T")


def _setting(
    default: T, doc: str, *, flag: str = "", choices: Strings = (), least: float | None = None, secret: bool = False
) -> T:
    """A field with what people need to know of it. ``flag`` is its option on the command line, if it has one.

    A ``secret`` is shown to nobody.
    """
    metadata = {"doc": doc, "flag": flag, "choices": choices, "least": least, "secret": secret}
    declared: T = field(default=default, repr=not secret, metadata=metadata)
    return declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The one port, and how it is reached."""

    host: str = _setting(
        "localhost",
        "Address to listen on. `localhost` is both 127.0.0.1 and ::1; any other needs `insecure_public`.",
        flag="--host",
    )
    port: int = _setting(30080, "The one port: API, console and files. 0 takes a free one.", flag="--port", least=0)
    public_url: str = _setting("", "Base of links and signed URLs. Empty: `http://localhost:<port>`.")
    task_url: str = _setting("", "Base at which tasks call back. Empty: `public_url`.")
    allowed_hosts: Strings = _setting(
        (), "Host headers answered beside loopback names, `*.localhost`, and the hosts of `public_url` and `task_url`."
    )
    cors_origins: Strings = _setting((), "Origins beside our own whose pages may call the API.")
    key: str = _setting(
        "",
        "Secret behind run tokens and signed URLs, the same for all replicas: 32 bytes or more in base64. Empty: the file "
        "`key` in the data directory, made at the first start.",
        secret=True,
    )
    insecure_public: bool = _setting(False, "Listen beyond loopback although nobody has to sign in.", flag="--insecure-public")
    shutdown_grace: Seconds = _setting(5.0, "How long a stop waits for calls and tasks to end.", least=0)
    max_message_bytes: Size = _setting(64 << 20, "Largest message accepted or sent.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where the server keeps its files."""

    dir: Path = _setting(
        Path(),
        "Data directory. Empty: `$XDG_DATA_HOME/flyte-unified`, or `~/.flyte-unified` without that variable.",
        flag="--data-dir",
    )
    ephemeral: bool = _setting(
        False, "Keep everything but code bundles in a temporary directory, removed at the end.", flag="--ephemeral"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The ledger's database."""

    url: str = _setting(
        "", "Address of a Postgres database: `postgresql://user:password@host:port/name`. Empty: SQLite, in the data directory."
    )
    pool_size: int = _setting(8, "Connections to Postgres that read; two more write and listen.", least=1)
    statement_timeout: Seconds = _setting(30.0, "How long Postgres may take for one statement.", least=0.1)
    queue_limit: int = _setting(10_000, "Writes that may wait; more are refused as RESOURCE_EXHAUSTED.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where inputs, outputs and code bundles are kept."""

    root: str = _setting(
        "",
        "Directory of inputs and outputs, or `s3://bucket/prefix`, `gs://...`, `abfs://...`. Empty: `storage` in the data "
        "directory.",
    )
    bundles: str = _setting(
        "",
        "Directory or address of code bundles. Empty: `_bundles` below a `root` that is no directory; else `bundles` in the "
        "data directory, and never in an ephemeral one: clients remember for a day where they uploaded.",
    )
    s3_endpoint: str = _setting("", "URL of the S3 server. Empty: `$AWS_ENDPOINT_URL_S3`, `$AWS_ENDPOINT_URL`, else AWS.")
    s3_public_endpoint: str = _setting(
        "", "URL of the same server for clients: signed URLs begin with it. Empty: `s3_endpoint`."
    )
    s3_region: str = _setting("", "Region of the bucket. Empty: `$AWS_REGION`, `$AWS_DEFAULT_REGION`, else us-east-1.")
    s3_access_key: str = _setting(
        "",
        "Access key, given to local tasks too. Empty: `$AWS_ACCESS_KEY_ID` and its kin, else `~/.aws/credentials`, else the "
        "machine's IAM role; tasks then find theirs in the same way.",
    )
    s3_secret_key: str = _setting("", "The secret of `s3_access_key`.", secret=True)
    s3_virtual_host: bool = _setting(False, "The bucket is part of the host name, as AWS always has it, not of the path.")
    upload_max_bytes: Size = _setting(20 << 30, "Largest single upload.", least=1)
    url_expiry: Seconds = _setting(3600.0, "How long a signed URL is good for.", least=1)
    min_free_bytes: Size = _setting(1 << 30, "With less disk space than this, new runs are refused.", least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How tasks run."""

    launcher: str = _setting(
        "processes", "What a task is: a local process, or a pod in a cluster.", choices=("processes", "pods")
    )
    python: str = _setting(
        "",
        "Interpreter of tasks, or its environment's directory. Empty: the active environment, else `.venv` or `venv` in the "
        "working directory, if the SDK is installed there, else the interpreter that runs the server.",
        flag="--python",
    )
    container_engine: str = _setting(
        "", "Program that runs tasks in images of their own: `podman`, `docker` or a path. Empty: whichever of both answers."
    )
    slots: int = _setting(0, "Tasks that compute at the same time. 0: the number of CPUs.", flag="--slots", least=0)
    warm: bool = _setting(True, "Fork tasks from an interpreter that has its imports done. Off: start each afresh.")
    process_watermark: int = _setting(
        64, "Above this many live task processes (waiting parents included) one is admitted at a time.", least=1
    )
    process_limit: int = _setting(512, "Live task processes at most; an action beyond fails.", least=1)
    memory_fraction: float = _setting(0.8, "Part of the machine's memory that tasks may request together.", least=0.01)
    system_retries: int = _setting(3, "Attempts repeated for faults that are not the task's own.", least=0)
    retry_backoff: Seconds = _setting(1.0, "Wait before the first repeated attempt, where a task sets none.", least=0)
    retry_backoff_factor: float = _setting(2.0, "What the wait is multiplied by for each further attempt.", least=1)
    retry_backoff_max: Seconds = _setting(60.0, "Longest wait between attempts.", least=0)
    kill_grace: Seconds = _setting(5.0, "Time between SIGTERM and SIGKILL when a task is aborted.", least=0)
    log_max_bytes: Size = _setting(64 << 20, "Output kept of one attempt; the middle of a longer one is lost.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    """The cluster in which tasks run as pods (`execution.launcher: pods`)."""

    kubeconfig: str = _setting("", "Kubeconfig file. Empty: the pod's own service account, else kubectl's rules.")
    context: str = _setting("", "Its context. Empty: the current one.")
    namespace: str = _setting(
        "flyte", "Where work orders and pods are. May hold `{project}` and `{domain}`; such namespaces must exist."
    )
    lease: str = _setting("flyte-unified", "Name of the Lease by which replicas elect who carries out runs.")
    lease_namespace: str = _setting("", "Its namespace. Empty: `namespace`, or `default` where that is a template.")
    lease_duration: Seconds = _setting(15.0, "After how long without a word from the leader another takes over.", least=1)
    order_ttl: Seconds = _setting(3600.0, "How long the TaskAction and the pods of an ended action are kept.", least=0)

    @property
    def scope(self) -> str:
        """The one namespace of all work; empty where projects have their own."""
        return "" if "{" in self.namespace else self.namespace

    def namespace_of(self, project: str, domain: str) -> str:
        """Where the work of a project's domain is."""
        return self.namespace.replace("{project}", project).replace("{domain}", domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """What the pods of tasks are like, where the task does not say (`execution.launcher: pods`)."""

    template: str = _setting("", "The PodTemplate of tasks that name none. Looked for in the pod's own namespace first.")
    template_namespace: str = _setting("", "Where PodTemplates are that every project may name.")
    cpu: str = _setting("1", "Requested for a task that says nothing, as Kubernetes writes it.")
    memory: str = _setting("1Gi", "The same of memory.")
    service_account: str = _setting("", "ServiceAccount of tasks. Empty: the namespace's default.")
    image_pull_secrets: Strings = _setting((), "Secrets with which images are pulled.")
    image_pull_policy: str = _setting("", "`Always`, `IfNotPresent` or `Never`. Empty: Kubernetes' own rule.")
    store_secret: str = _setting(
        "",
        "A Secret whose entries are environment variables of tasks: how they reach the store. Needed with "
        "`storage.s3_access_key`, which no pod's spec holds.",
    )
    node_selector: Strings = _setting((), "Labels of the nodes of tasks: `key=value`.")
    tolerations: Strings = _setting((), "Taints that tasks put up with: `key=value:NoSchedule`, `key:NoExecute` or `key`.")
    interruptible: bool = _setting(False, "Whether tasks that do not say may be interrupted.")
    interruptible_selector: Strings = _setting((), "Labels of nodes that may vanish.")
    interruptible_tolerations: Strings = _setting((), "Taints of nodes that may vanish.")
    interruptible_failures: int = _setting(
        3, "System failures after which an interruptible task goes on where nothing vanishes. 0: it never does.", least=0
    )
    labels: Strings = _setting((), "Labels of every pod: `key=value`.")
    annotations: Strings = _setting((), "Annotations of every pod: `key=value`.")
    termination_grace: Seconds = _setting(0.0, "Time between SIGTERM and SIGKILL. 0: Kubernetes' 30 s.", least=0)
    data_image: str = _setting(
        "",
        "Image with flyte-unified, which moves the data of tasks whose own image knows nothing of Flyte. Empty: refuse them.",
    )
    data_cpu: str = _setting("500m", "What such a mover requests.")
    data_memory: str = _setting("512Mi", "The same of memory.")
    data_timeout: Seconds = _setting(3600.0, "How long storing the outputs of such a task may take.", least=1)
    image_pull_grace: Seconds = _setting(180.0, "How long an image may fail to come before the attempt fails.", least=0)
    create_container_grace: Seconds = _setting(180.0, "The same of a container that the node fails to create.", least=0)
    pending_timeout: Seconds = _setting(
        0.0, "How long a pod may take to start before the attempt is repeated. 0: for ever.", least=0
    )
    node_lost_grace: Seconds = _setting(
        120.0, "How long a deleted pod may be without a word from its node before it counts as gone.", least=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators:
    """What operators' resources are like. Links may hold `{{.namespace}}` and `{{.name}}`; empty: no link."""

    spark_conf: Strings = _setting((), "Of every Spark task, below its own: `key=value`.")
    spark_version: str = _setting("3.5.0", "What the Spark operator is told of images, which do not tell.")
    spark_service_account: str = _setting("spark", "Of drivers that name none: a driver creates its executors.")
    spark_history: str = _setting("", "Link to the history of an application. Also `{{.sparkApplicationID}}`.")
    ray_ttl: Seconds = _setting(0.0, "How long a Ray cluster stays after its job, for tasks that keep it.", least=0)
    ray_dashboard: str = _setting(
        "", "Link to the dashboard. Also `{{.rayClusterName}}`. Empty: the address that KubeRay tells."
    )
    dask_dashboard: str = _setting("", "Link to the dashboard of the Service `{{.name}}-scheduler`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connectors:
    """Services that run tasks of their types somewhere else (flyteidl2.connector), on a laptop as in a cluster."""

    endpoints: Strings = _setting(
        (),
        "Their addresses, `host:port`, or `grpcs://host:port` for TLS. `type=address` gives it the tasks of that type, "
        "whatever else they could be; a bare address is asked what it runs of the tasks that nothing else here does.",
    )
    poll: Seconds = _setting(10.0, "How often a connector is asked about a job; at first more often.", least=0.05)
    timeout: Seconds = _setting(30.0, "How long a connector may take for an answer.", least=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Apps:
    """Programs that serve, each under a host name of its own: `http://<app>.localhost:<port>`."""

    url: str = _setting(
        "",
        "Address below which they are: `https://apps.example.org` has them at `https://<app>.apps.example.org`. Empty: the "
        "server's own.",
    )
    idle: Seconds = _setting(
        300.0, "After how long without a request an app that may have no replica has none, where it does not say.", least=1
    )
    start_timeout: Seconds = _setting(300.0, "How long an app may take from its start until it listens.", least=1)
    wake_timeout: Seconds = _setting(60.0, "How long a request waits for an app to be ready.", least=1)
    request_timeout: Seconds = _setting(300.0, "How long an app may take to begin an answer, where it does not say.", least=1)
    knative: str = _setting(
        "auto",
        "In a cluster: whether apps are Knative's where that is installed, or Deployments in any case.",
        choices=("auto", "never"),
    )
    backoff: Seconds = _setting(1.0, "Wait before an app that ended is started again; it doubles each time.", least=0.01)
    backoff_max: Seconds = _setting(300.0, "Longest wait.", least=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """How many actions compute at the same time, whatever their runs are."""

    max_concurrency: Strings = _setting(
        (),
        "Queues that runs and tasks may name, and how many actions of each compute at once: `name=8`, or `name` for no bound. "
        "`default` is the queue of those that name none. Empty: any name is taken, and none has a bound.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifications:
    """Who is told how runs ended (`flyte.notify`), and of conditions that wait."""

    file: str = _setting("", "YAML file of named rules and deliveries. Empty: there are none, and nobody is told by name.")
    hosts: Strings = _setting((), "Hosts that webhooks may call: `hooks.slack.com`, `*.example.com`. Empty: any.")
    timeout: Seconds = _setting(10.0, "How long a receiver may take for its answer.", least=0.1)
    retry_max: Seconds = _setting(600.0, "Longest wait before a delivery that failed is tried again.", least=0.01)
    retry_for: Seconds = _setting(86_400.0, "How long a delivery is tried before it is given up.", least=0)
    keep: Seconds = _setting(2_592_000.0, "How long it is known after that what could not be delivered, and why.", least=0)
    smtp_host: str = _setting("", "The server that takes e-mail. Empty: none is sent.")
    smtp_port: int = _setting(587, "Its port.", least=1)
    smtp_security: str = _setting(
        "starttls",
        "Whether the connection is encrypted: after STARTTLS, from its beginning, or not.",
        choices=("starttls", "tls", "none"),
    )
    smtp_user: str = _setting("", "Who signs in there. Empty: nobody.")
    smtp_password: str = _setting("", "With which password.", secret=True)
    sender: str = _setting("flyte@localhost", "The address that e-mail is from.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images with layers: built here as virtual environments, in a cluster by BuildKit."""

    build: bool = _setting(True, "Off: every image is said to exist; on a laptop tasks then run in `execution.python`.")
    dir: str = _setting("", "Where virtual environments are kept. Empty: `images` in the data directory.")
    max_age: Seconds = _setting(30 * 86400.0, "For how long a virtual environment is kept that nothing uses.", least=0)
    max_bytes: Size = _setting(
        20 << 30, "Bytes of them all, with what they share with uv's cache. Of more, those unused for longest go.", least=1
    )
    allow_commands: bool = _setting(False, "Let images run commands when they are built: on this machine, as you.")
    registry: str = _setting(
        "", "In a cluster: where images are pushed, `registry.example.com/flyte`. Empty: those with layers are refused."
    )
    registry_secret: str = _setting("", "A Secret (`kubernetes.io/dockerconfigjson`) with which BuildKit pushes and pulls.")
    registry_insecure: bool = _setting(False, "The registry speaks plain HTTP.")
    buildkit_image: str = _setting("moby/buildkit:v0.34.2-rootless", "Image of rootless BuildKit.")
    uv_image: str = _setting("ghcr.io/astral-sh/uv:0.13.4", "Image that has uv as `/uv`.")
    cpu: str = _setting("1", "What BuildKit requests.")
    memory: str = _setting("2Gi", "The same of memory.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Reuse of results."""

    reservation_heartbeat: Seconds = _setting(10.0, "How often the holder of a reservation renews it.", least=0.1)
    reservation_grace: float = _setting(3.0, "Heartbeats that may be missed before a reservation is free.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """Runs that start on their own."""

    catch_up: str = _setting(
        "all",
        "What becomes of fires that were missed while the server was down or the machine asleep: `all` become runs, the "
        "`latest` does, or none (`skip`). A trigger's annotation `flyte-unified/catch-up` says it for that trigger.",
        choices=("all", "latest", "skip"),
    )
    catch_up_limit: int = _setting(100, "How many missed fires of one trigger become runs at most, the latest ones.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """Runs that their clients carry out and report (`flyte run --local --tracked`)."""

    silence: Seconds = _setting(
        604800.0,
        "After how long without a report a run that has not ended counts as given up, and is aborted; 0: never.",
        least=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Projects:
    """What exists at the first start."""

    seed: Strings = _setting(("flytesnacks",), "Projects created in an empty database.")
    domains: Strings = _setting(
        ("development", "staging", "production"), "Domains that every project has, unless they were deleted."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The server's own log, on standard error. Tasks have theirs."""

    level: str = _setting("info", "Least level shown.", flag="--log-level", choices=("debug", "info", "warning", "error"))
    format: str = _setting("auto", "auto: console on a terminal, else json.", choices=("auto", "console", "json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a caller is taken for where nobody has to sign in."""

    name: str = _setting("", "Name shown as the owner of runs. Empty: the login name of the server's user.")
    email: str = _setting("", "Address shown with it.")
