"""TPC-H and the SQL sandbox of `database_ops`."""
