"""TPC-H and the SQL sandbox behind `database_ops`."""
