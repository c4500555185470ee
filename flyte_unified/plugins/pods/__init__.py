"""Tasks as pods: from an attempt to a pod's manifest, and from a pod back to what it tells of its attempt. All of it pure.

``build`` puts a manifest together (``merge``, ``resources``, ``scheduling``, ``secrets``, ``metadata`` and ``dataside`` are its
parts), ``state`` and ``waiting`` read a pod, ``records`` say it to people. A manifest is JSON as on the wire, never a client's
model: what a user wrote into a pod template arrives as it was written, fields that this program has never heard of included.
"""
