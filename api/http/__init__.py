"""HTTP below the handlers: routes, access rules, bodies, errors, streaming, the OpenAPI document."""
