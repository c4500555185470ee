"""Literals and their types as JSON forms, and back: what a launch form in a browser reads and writes.

A form is a JSON schema (the flavour of react-jsonschema-form): one property per input, its value as ``default``. Schemas and
values alone cannot carry all that a literal knows, so each property may have one more keyword, ``x-flyte``, which is written
only where something would be lost and may always be left out by a client (``forms`` says what is in it).

``texts`` is about scalars, ``schema`` types, ``values`` literal to JSON, ``parse`` JSON to literal, ``packed`` msgpack,
``forms`` all of it together.
"""
