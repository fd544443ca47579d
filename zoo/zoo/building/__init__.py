"""From a source to a model: `zoo.build`, `zoo.load` and their kin."""
