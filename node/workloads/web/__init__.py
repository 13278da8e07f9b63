"""Server, load generators and arithmetic behind `web_server_load`."""
