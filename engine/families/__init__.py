"""Model families that this engine runs by code of its own, a folder each."""
