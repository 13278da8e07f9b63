"""What each route of the REST bridge does: a file a resource."""
