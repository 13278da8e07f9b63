"""HTTP below the handlers: routes, authentication, bodies, errors, streaming, the OpenAPI document."""
