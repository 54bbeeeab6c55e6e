"""What a dbt invocation did, taken into a store as one run.

`read_dbt` reads the artifacts that dbt left in its target directory, ``run_results.json`` and ``manifest.json``;
`record_dbt` writes what was read, in one transaction; `import_dbt` does both, and `preview_dbt` says what it would do.

Source: https://docs.getdbt.com/reference/artifacts/run-results-json and
https://docs.getdbt.com/reference/artifacts/manifest-json.
"""

from seeknal.integrations.dbt.mapping import DbtRun, read_dbt
from seeknal.integrations.dbt.recording import DbtImport, import_dbt, preview_dbt, record_dbt

__all__ = ["DbtImport", "DbtRun", "import_dbt", "preview_dbt", "read_dbt", "record_dbt"]
