"""The parts of serving over HTTP. Nothing in here is imported unless somebody asks for that."""
