"""The door `/v1/responses`, after the Open Responses specification and OpenAI's."""
