"""The engine for models behind a server that speaks the OpenAI API. `engine.openai.engine.open_openai` opens one."""
