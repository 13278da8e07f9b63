"""database_ops: a separate DuckDB database per task, in the task's folder; TPC-H or, in a closed mesh, one SELECT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.database_ops import DUCKDB_MEMORY_MB, DatabaseOpsPayload
from node.executor.context import Context
from node.workloads.database import sql_sandbox, tpch

if TYPE_CHECKING:
    import duckdb

#: Disk space for sorts and joins that don't fit into memory.
TEMP_MB = 20 * 1024


def run(payload: DatabaseOpsPayload, context: Context) -> dict[str, Any]:
    """Run TPC-H (`tpch.run`), or the payload's SQL (`sql_sandbox.run`)."""
    with connect(context.folder, context.cores) as connection:
        if payload.sql is not None:
            return sql_sandbox.run(connection, payload, context)
        return tpch.run(connection, payload, context)


def connect(folder: Path, cores: int) -> duckdb.DuckDBPyConnection:
    """A new database in `folder`, with limited threads, memory and disk space, and without downloads."""
    import duckdb

    return duckdb.connect(
        str(folder / "task.duckdb"),
        config={
            "threads": cores,
            "memory_limit": f"{DUCKDB_MEMORY_MB}MiB",
            "temp_directory": str(folder / "spill"),
            "max_temp_directory_size": f"{TEMP_MB}MiB",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "preserve_insertion_order": False,
        },
    )
