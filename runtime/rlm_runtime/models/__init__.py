"""Who answers prompts: one module for each kind of model."""
