"""Token generation. The boundary is `engine.api`; nothing here knows of the method (`rsa`) or of scoring (`evals`)."""
