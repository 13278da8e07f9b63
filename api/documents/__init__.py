"""The JSON documents of the REST bridge: their schemas, and how they are made."""
