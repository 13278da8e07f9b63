"""The server, load generators and arithmetic of `web_server_load`."""
