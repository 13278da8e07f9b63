"""The contract of `database_ops`: TPC-H in DuckDB, with checked answers; in a closed mesh SQL on CSV and Parquet."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from mesh.kinds.base import Data, KindSpec, Need, Payload, Resources

QUERIES = tuple(range(1, 23))
MAX_SCALE_FACTOR = 10.0
MAX_STREAMS = 8
MAX_ROWS = 100_000
#: The memory limits of the task and of DuckDB, MiB; the difference is for memory that DuckDB does not count.
MEMORY_MB = 3072
DUCKDB_MEMORY_MB = 1536

_TABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class DatabaseOpsPayload(Payload):
    """Payload of `database_ops`: empty for TPC-H at scale factor 0.1, or SQL and the tables it reads."""

    benchmark: Literal["tpch"] = Field(default="tpch", description="benchmark to run when there is no sql")
    scale_factor: float = Field(
        default=0.1,
        ge=0.001,
        le=MAX_SCALE_FACTOR,
        allow_inf_nan=False,
        description="size of the data: 1 is about 1 GB; answers are checked at 0.01, 0.1 and 1",
    )
    queries: tuple[Annotated[int, Field(ge=1, le=22)], ...] = Field(
        default=QUERIES, description="numbers of the queries, 1 to 22; power and throughput require all 22"
    )
    streams: int | None = Field(
        default=None,
        ge=0,
        le=MAX_STREAMS,
        description="concurrent query streams of the throughput test; TPC-H's minimum by default; 0: no such test",
    )
    sql: str | None = Field(
        default=None,
        min_length=1,
        max_length=100_000,
        description="one SELECT on `tables`, instead of a benchmark; in a closed mesh only",
    )
    tables: dict[str, Data] = Field(
        default_factory=dict, max_length=64, description="table name -> CSV or Parquet file, as base64 or a blob"
    )
    max_rows: int = Field(default=1000, ge=1, le=MAX_ROWS, description="maximum number of rows that a SELECT returns")

    @field_validator("queries")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("must name at least one query, and each query once")
        return value

    @field_validator("tables")
    @classmethod
    def _read_by_sql(cls, value: dict[str, object], info: ValidationInfo) -> dict[str, object]:
        if value and info.data.get("sql", "") is None:
            raise ValueError("must be left out when there is no sql to read them")
        if not all(_TABLE_NAME.fullmatch(name) for name in value):
            raise ValueError(
                "must have names of at most 63 lower-case letters, digits and '_', not starting with a digit"
            )
        return value

    @property
    def stream_count(self) -> int:
        """Streams of the throughput test; 0 when only some of the queries run."""
        if len(self.queries) < len(QUERIES):
            return 0
        return least_streams(self.scale_factor) if self.streams is None else self.streams


def least_streams(scale_factor: float) -> int:
    """TPC-H's minimum number of query streams at a scale factor (clause 5.3.4): 2 up to 1 GB, 3 up to 10 GB."""
    return 2 if scale_factor <= 1 else 3


SPEC = KindSpec(
    name="database_ops",
    summary="Run TPC-H in DuckDB: 22 queries, checked answers, power, throughput; SQL in a closed mesh.",
    payload=DatabaseOpsPayload,
    resources=Resources(cores="all", memory_mb=MEMORY_MB),
    needs=(Need("duckdb", "sql"), Need("duckdb_extension_tpch", "sql")),
    timeout_s=3600.0,
    example={"scale_factor": 0.01},
    probe={"scale_factor": 0.01, "streams": 0},
    members_only={"sql": "is code, which a mesh runs"},
)
