"""How two meshes of one name detect each other and are merged."""
