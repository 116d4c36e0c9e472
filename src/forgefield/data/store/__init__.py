"""ForgeField's own store: typed arrays in LMDB shards."""
