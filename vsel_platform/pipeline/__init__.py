"""The stages in the order in which data walks: each loads, calls the engine, publishes, and says what it did."""
