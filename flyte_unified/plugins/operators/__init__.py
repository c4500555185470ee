"""Tasks that an operator of the cluster runs: Spark, Ray, Dask, Kubeflow's training jobs, JobSets.

One file a family: from an attempt to the operator's custom resource, and from that resource back to what it tells. Its pods are
the task's own, as ``plugins.pods`` builds them, each role's a variation (``roles``). Nothing is tried again within an attempt
unless the task's author asks for it: retries are the executor's, which counts and tells them.
"""
