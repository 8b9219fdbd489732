"""Short queries of the endpoint: of keys, and of what was refused."""

from common.database import QueryThreads

run_query = QueryThreads("ingest-query", 4).run
