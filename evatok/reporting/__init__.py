"""Tables and claims from stored records."""
