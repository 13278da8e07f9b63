"""One file a resource: what each route of the REST bridge does."""
