"""One large piece of work as many tasks of the mesh, and their results as one."""
