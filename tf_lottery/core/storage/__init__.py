"""Files that are written whole or not at all, here or in an object store."""
