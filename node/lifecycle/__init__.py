"""How a node joins, hosts a bus server, follows a merge or a network change, drains and leaves."""
