"""How the built-in model `nano` is made: tokenizer, training texts, model, training, export."""
