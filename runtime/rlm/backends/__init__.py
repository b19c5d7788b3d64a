"""Where `Tool` is looked for as well."""
