"""Values and vocabulary: errors, models, events, policies. No I/O."""
