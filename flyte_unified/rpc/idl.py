"""Flyte 2's services and the modules that describe them.

A static table, because importing 85 generated modules to learn 27 names would cost a fifth of the time to start.
``tests/edge/test_registry.py`` compares it with the installed ``flyteidl2``.
"""

from __future__ import annotations

MODULES: dict[str, str] = {
    f"flyteidl2.{service}": f"flyteidl2.{module}_pb2"
    for service, module in (
        ("actions.ActionsService", "actions.actions_service"),
        ("app.AppLogsService", "app.app_logs_service"),
        ("app.AppService", "app.app_service"),
        ("artifact.ArtifactService", "artifact.artifact_service"),
        ("auth.AuthMetadataService", "auth.auth_service"),
        ("auth.IdentityService", "auth.identity"),
        ("cacheservice.CacheService", "cacheservice.cacheservice"),
        ("cacheservice.v2.CacheService", "cacheservice.v2.cacheservice"),
        ("cluster.ClusterService", "cluster.service"),
        ("connector.AsyncConnectorService", "connector.service"),
        ("connector.ConnectorMetadataService", "connector.service"),
        ("dataproxy.DataProxyService", "dataproxy.dataproxy_service"),
        ("imagebuilder.ImageService", "imagebuilder.service"),
        ("org.DomainService", "org.domain_service"),
        ("project.ProjectService", "project.project_service"),
        ("secret.SecretService", "secret.secret"),
        ("settings.SettingsService", "settings.settings_service"),
        ("task.TaskService", "task.task_service"),
        ("trigger.TriggerService", "trigger.trigger_service"),
        ("workflow.EventsProxyService", "workflow.events_proxy_service"),
        ("workflow.InternalRunService", "workflow.internal_run_service"),
        ("workflow.QueueService", "workflow.queue_service"),
        ("workflow.RunLogsService", "workflow.run_logs_service"),
        ("workflow.RunService", "workflow.run_service"),
        ("workflow.StateService", "workflow.state_service"),
        ("workflow.TrackedRunService", "workflow.tracked_run_service"),
        ("workflow.TranslatorService", "workflow.translator_service"),
    )
}
"""Full service name to the module that holds its descriptor."""
