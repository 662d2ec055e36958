"""Tools that a model may call: whether their schemas are any, and the calls that stand in what it writes."""
