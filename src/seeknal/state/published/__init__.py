"""Reads what the published Seeknal platform remembers, and never writes to it.

==========================================  =====================================================================
``run_state.json``                          the latest run: ``version: "1.0.0"``, or ``schema_version: "2.0"``
``run_state.json.bak.<run id>``             the run before, as it stood when the named run was saved
``<run id>/run_state.json``, ``nodes/``     one folder for each run; a node's file is named by its id without slashes
``state/execution_state.json``              before there were runs: node id to status, seconds and row count
``state.db``                                SQLite with ``run_state`` and ``node_state``
==========================================  =====================================================================

A name says where to look; what is found there is known by its content.

Source: the platform's public repository, https://github.com/mta-tech/seeknal: ``workflow/state.py`` (fields,
versions, backups), ``workflow/runner.py`` (``execution_state.json``), ``state/file_backend.py`` (folders) and
``state/database_backend.py`` (tables).
"""
